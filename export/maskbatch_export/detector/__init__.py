"""The workshop of the face detector: model, training, evaluation, export to ONNX."""
