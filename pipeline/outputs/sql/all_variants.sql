-- The newest row of each key and variant (a model with its settings, named by `recipe`), so that no image counts once a
-- run. An image that two variants labelled has two rows here.
CREATE OR REPLACE VIEW all_variants AS
SELECT * FROM results
QUALIFY row_number() OVER (PARTITION BY key, model_id, params_id ORDER BY run_id DESC) = 1;
