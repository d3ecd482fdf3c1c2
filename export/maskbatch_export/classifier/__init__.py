"""Making the classifier: data, training, evaluation, conversion, variants."""
