"""What mmengine looks for in every OpenMMLab package: see ``mmengine.hub``."""

from gckd_mm.utils.setup_env import register_all_modules

__all__ = ['register_all_modules']
