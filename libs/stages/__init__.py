"""The stages: what an asset calls. Each is one function from a job (what determines the result) and a run (where it is
made, who is told) to a result; the module of a stage has the name of its asset.

``request`` takes a request and its media in, ``poses`` finds, fits and draws poses, ``clip`` samples, ``review``
measures; ``model_verification`` and ``model_files`` look after a variant's repository.
"""
