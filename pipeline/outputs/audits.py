"""Tables of what audits found, beside the results that they are about: OUTPUT/audits/<audit id>.parquet."""

import pyarrow as pa

AUDITS_SCHEMA = pa.schema(
    [
        pa.field("audit_id", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("domain", pa.string()),
        pa.field("class_id", pa.int16(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("model_share", pa.float64(), nullable=False),
        pa.field("bias", pa.float64(), nullable=False),
        pa.field("bias_low", pa.float64(), nullable=False),
        pa.field("bias_high", pa.float64(), nullable=False),
        pa.field("iou", pa.float64()),
        pa.field("precision", pa.float64()),
        pa.field("recall", pa.float64()),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("annotated", pa.int64(), nullable=False),
    ],
    metadata={"fcn_schema": "audits/1"},
)
"""One row per class, and per domain and class; `domain` is null where the row is about the whole population."""


def audit_table_key(audit_id: str) -> str:
    """Where under OUTPUT the newest estimate of an audit is."""
    return f"audits/{audit_id}.parquet"
