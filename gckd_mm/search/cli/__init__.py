"""What is called from the shell, besides the tools."""
