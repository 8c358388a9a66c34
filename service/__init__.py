"""HTTP into calls of the runtime, and the web page."""
