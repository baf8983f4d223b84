"""What each verb can be asked for: frozen values with their ranges, their meaning, and the published default.

Every setting is spelled once, here. params.yaml and `--set` are read into these classes (the command line checks the
ranges), a notebook makes them by name, and stages hand them on whole. Nothing heavy is imported.
"""
