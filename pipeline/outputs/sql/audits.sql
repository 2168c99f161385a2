-- What audits found: one row per class, and per domain and class, of the newest estimate of each audit. `domain` is null
-- where the row is about the whole of what was audited.
CREATE OR REPLACE VIEW audits AS
SELECT * FROM read_parquet(getvariable('output') || '/audits/*.parquet', hive_partitioning = false);
