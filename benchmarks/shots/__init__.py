"""How well shots are found, kind by kind, beside PySceneDetect."""
