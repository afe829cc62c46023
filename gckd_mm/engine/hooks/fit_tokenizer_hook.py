"""A vocabulary for models that train from scratch."""

from __future__ import annotations

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import HOOKS


@HOOKS.register_module()
class FitTokenizerHook(Hook):
    """Fit the tokenizer on the training captions, unless it has a vocabulary already.

    It runs before anything is loaded and before any copy of the model is made, such as
    that of mmengine's ``EMAHook``. A checkpoint that is loaded or resumed then brings
    the vocabulary that its weights were trained with.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Fit on the main process and give the result to all."""
        model = unwrapped(runner.model)
        tokenizer = model.data_preprocessor.tokenizer
        training = isinstance(runner._train_loop, BaseLoop)  # built by Runner.train
        if tokenizer.fitted or not training:
            return
        if is_main_process():
            captions = runner.train_dataloader.dataset.captions()
            tokenizer.fit(captions)
            runner.logger.info(
                f'Fitted the tokenizer on {len(captions)} captions: {tokenizer}'
            )
        state = [tokenizer.get_extra_state()]
        broadcast_object_list(state)
        tokenizer.set_extra_state(state[0])
