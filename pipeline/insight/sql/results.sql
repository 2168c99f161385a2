-- Every row of every run: an image has one row in each run that took it.
CREATE OR REPLACE VIEW results AS
SELECT *, left(sha256('["' || model_id || '","' || params_id || '"]'), 8) AS recipe
FROM read_parquet(getvariable('output') || '/results/*/*.parquet',
                  hive_partitioning = true, hive_types = {'run_id': VARCHAR});
