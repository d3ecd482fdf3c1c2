"""The training package of the face detector: model, training, evaluation, export to ONNX."""
