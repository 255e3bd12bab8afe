"""Pictures of a result: terminal, HTML, SVG, and the files it is stored in."""
