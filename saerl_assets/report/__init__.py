"""What a person looks at: figures from frames, and one HTML page per version.

Belongs here: drawing. Does not belong here: computing what is drawn.
"""
