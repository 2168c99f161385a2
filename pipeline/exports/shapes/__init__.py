"""Masks as shapes: exact outlines with holes, simpler ones, outlines without holes, and COCO's run lengths."""
