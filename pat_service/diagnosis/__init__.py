"""The checks of `doctor`: why a frame stays blank or refuses. They return findings and write nothing."""
