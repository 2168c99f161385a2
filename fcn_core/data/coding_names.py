"""The names of mask codings alone: options of jobs are read without what reads images."""

from typing import Literal

MaskCoding = Literal["auto", "index", "from_one", "rgb", "gray", "binary"]
"""How a mask file says the class of a pixel.

index: the stored number, of a palette or 8-bit grey file. from_one: the stored number less 1, and no label where it is
0, as ADE20K has it. rgb: the colour, looked up in the label set's palette. gray:
how bright the pixel is, which some tools save as RGB, 1-bit or 16-bit PNG. binary: black is class 0, and the one other
value or colour of the file is class 1. auto: palette and grey files are numbers,
RGB ones colours, and files that may be meant otherwise are refused.
"""
