"""What a person looks at: annotated pictures and videos, crops, redaction."""
