-- What the output knows now: the newest row of each key by the newest variant, which is that of the newest run with
-- results. No image counts twice.
CREATE OR REPLACE VIEW current AS
SELECT * FROM all_variants WHERE recipe = (SELECT arg_max(recipe, run_id) FROM results);
