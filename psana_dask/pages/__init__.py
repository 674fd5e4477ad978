"""Pages in the browser: what is shown of runs and streams, and how it is served."""
