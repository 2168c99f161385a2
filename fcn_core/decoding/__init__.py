"""Image bytes to RGB pixels: the one decoder of the project, for segmenting, evaluating, training and looking.

The one thing to know: `decode` returns right pixels or raises DecodeError. Where a decoder would go on after damage and
leave the rest of a picture to chance, the file is refused. One file here per format whose reader is not simply Pillow.
"""

from fcn_core.decoding.image import FORMATS, MAX_PIXELS, Decoded, decode
from fcn_core.decoding.stored import Pixels, turned, without_text_before

__all__ = ["FORMATS", "MAX_PIXELS", "Decoded", "Pixels", "decode", "turned", "without_text_before"]
