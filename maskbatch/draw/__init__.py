"""What a person looks at: annotated images and videos, crops, redaction."""
