"""From a bundle and images to masks: the predictor, its engines, tiling, argmax, int8 and ONNX.

The one thing to know: callers use a `predictor.Predictor`. All that can change a mask is in its
`settings.PredictorSettings`.
"""
