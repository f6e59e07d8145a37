"""Every setting of every flow: name, default, explanation, and whether it decides the result. Nothing but settings and
how they are loaded from conf/; imports nothing else of this project."""
