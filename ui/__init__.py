"""The page: how an examination is shown.

Imports run one way: ``app > ui > explain.examination > explain.*, rag > models``. Gradio stands only here and in
``app.py``. Rooms below return values; this one turns them into words, pictures and controls.
"""
