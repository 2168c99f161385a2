-- What the output knows now: the newest row of each key by the newest variant, which is that of the newest run with
-- results. Runs with `where` only redo some images, so below their variants lie those of the runs before, down to the
-- newest run without `where`. No image counts twice.
CREATE OR REPLACE VIEW current AS
WITH variants AS (SELECT recipe, max(run_id) AS newest FROM results GROUP BY recipe),
     whole AS (
         SELECT coalesce(max(run_id), '') AS run_id FROM results
         WHERE run_id NOT IN (SELECT regexp_extract(file, 'runs/([^/]+)/where\.txt$', 1)
                              FROM glob(getvariable('output') || '/runs/*/where.txt')))
SELECT all_variants.* FROM all_variants JOIN variants ON all_variants.recipe = variants.recipe
WHERE variants.newest >= (SELECT run_id FROM whole)
QUALIFY row_number() OVER (PARTITION BY key ORDER BY variants.newest DESC) = 1;
