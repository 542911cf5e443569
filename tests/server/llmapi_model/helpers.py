"""Beside model.py, as upstream's is: shows that both files were copied and that Triton finds the second one."""

WORD = "word"
