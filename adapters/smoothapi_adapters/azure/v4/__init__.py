"""Azure AI Vision, Image Analysis 4.0."""
