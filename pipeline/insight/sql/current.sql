-- What the output knows now: the newest row of each key and recipe, so that no image counts once a run.
CREATE OR REPLACE VIEW current AS
SELECT * FROM results
QUALIFY row_number() OVER (PARTITION BY key, model_id, params_id ORDER BY run_id DESC) = 1;
