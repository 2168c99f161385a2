-- Every row of every run: an image has one row in each run that took it.
CREATE OR REPLACE VIEW results AS
SELECT * FROM (SELECT *, left(sha256('["' || model_id || '","' || params_id || '"]'), 8) AS recipe
FROM read_parquet(getvariable('output') || '/results/*/*.parquet',
                  hive_partitioning = true, hive_types = {'run_id': VARCHAR}, union_by_name = true))
-- Files of 0.1 lack these.
UNION ALL BY NAME SELECT NULL::TIMESTAMP AS taken_at, NULL::SMALLINT AS taken_at_offset WHERE false;
