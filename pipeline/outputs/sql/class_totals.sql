-- One row a class and finished run.
CREATE OR REPLACE VIEW class_totals AS
SELECT * EXCLUDE (filename),
       left(sha256('["' || model_id || '","' || params_id || '"]'), 8) AS recipe,
       regexp_extract(filename, 'run_id=([^/]+)\.parquet$', 1) AS run_id
FROM read_parquet(getvariable('output') || '/class_totals/*.parquet', filename = true, hive_partitioning = false);
