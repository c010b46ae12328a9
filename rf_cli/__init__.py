"""The command line of rf: words, files and screens around rainfusion_core."""

__version__ = "0.1.0"
