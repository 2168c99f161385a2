-- One row a run: what was asked, how it stands.
CREATE OR REPLACE VIEW runs AS
SELECT * FROM read_json(getvariable('output') || '/runs/*/run.json', format = 'unstructured', columns = {
    run_id: 'VARCHAR', state: 'VARCHAR', model_id: 'VARCHAR', params_id: 'VARCHAR', recipe: 'VARCHAR',
    images: 'BIGINT', shards: 'BIGINT', started: 'TIMESTAMPTZ', finished: 'TIMESTAMPTZ', seconds: 'DOUBLE',
    reason: 'VARCHAR', counts: 'STRUCT(images BIGINT, ok BIGINT, errors MAP(VARCHAR, BIGINT))', job: 'JSON',
    version: 'VARCHAR'});
