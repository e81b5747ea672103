"""The fleet: runs in a queue, worked off by workers on GPU hosts.

The modules here are started by name (``python -m orchestration.fleet.worker``) or named in ``dagster.yaml``. Their
parts are in ``launching`` (who launches runs), ``working`` (the worker), ``gpus`` (health) and ``local`` (one host).
"""
