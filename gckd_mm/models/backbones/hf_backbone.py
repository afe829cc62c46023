"""What the backbones from Hugging Face's transformers share."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from mmengine.model.weight_init import initialize
from torch import Tensor, nn

from gckd_mm.checkpoint import check_state_dict
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.models.hugging_face import import_transformers, read_config, read_model

#: names of what stands before the first layer, in every family
_STEM = ('embeddings', 'pre_layrnorm')


class HFBackbone(BaseModule):
    """A model of transformers as a backbone: pretrained or not, frozen up to a layer.

    Args:
        pretrained: A folder that transformers' ``save_pretrained`` wrote, or a name on
            the hub. None, the default, leaves the weights random. With ``pretrained``
            alone, sizes and weights are read at once. With ``config`` too, only
            ``init_weights`` reads it, which mmengine calls before training and not
            before testing: a checkpoint is then tested where the pretrained weights
            are not.
        config: Sizes, as transformers' config of this model names them. Defaults to
            those of ``pretrained``.
        attn_implementation: ``'sdpa'`` or ``'eager'``, or another that transformers
            knows. Defaults to ``'sdpa'`` where the model has it.
        gradient_checkpointing: Whether to compute each layer again in the backward
            pass instead of keeping it in memory. Defaults to False.
        frozen_stages: What is not trained, as in mmpretrain: -1 nothing, 0 the
            embeddings, n the embeddings and the first n layers. Defaults to -1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If there is no such model, or it is of another family.
    """

    model: nn.Module
    _is_init: bool

    def __init__(
        self,
        pretrained: str | None = None,
        config: dict[str, Any] | None = None,
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.frozen_stages = frozen_stages
        if pretrained is not None and config is None:
            sizes = self._part_of_config(read_config(pretrained), pretrained)
        else:
            sizes = self._config(config)
        self.model = self._build(sizes, attn_implementation, gradient_checkpointing)
        self.out_channels = int(sizes.hidden_size)
        self._pretrained = pretrained
        if config is None:
            self._read_pretrained()
        self._freeze()

    def init_weights(self) -> None:
        """Read the pretrained weights that are still waiting for it.

        The others stay as transformers initialised them: its models have a method of
        this name, which must not be called on weights that were read.
        """
        self._read_pretrained()
        if self.init_cfg and not self._is_init:
            initialize(self, self.init_cfg)
        self._is_init = True

    def train(self, mode: bool = True) -> HFBackbone:
        """Set the mode; what is frozen stays in the mode for testing."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return how deep a weight lies, for learning rates that decay with depth.

        Args:
            param_name: Its name.
            prefix: Before the names of this backbone's weights. Defaults to none.

        Returns:
            The depth (0 for the embeddings, 1 for the first layer, …) and the number of
            depths, which is two more than that of the layers.
        """
        depths = len(self._layers()) + 2
        own = f'{prefix}model.'
        if not param_name.startswith(own):
            return depths - 1, depths
        name = param_name.removeprefix(own)
        if name.startswith(_STEM):
            return 0, depths
        for number, layer in enumerate(self._layers_by_name()):
            if name.startswith(f'{layer}.'):
                return number + 1, depths
        return depths - 1, depths

    def _take_captions(
        self, vocab_size: int, context_length: int, is_published: bool
    ) -> None:
        """Say what a tokenizer may give: see :class:`DualEncoder`."""
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.has_published_vocabulary = is_published

    def _check_length(self, input_ids: Tensor) -> None:
        """Refuse captions that are longer than the context."""
        if input_ids.shape[1] > self.context_length:
            raise InputError(
                f'captions of {input_ids.shape[1]} tokens, but the text backbone has '
                f'{self.context_length} positions: set tokenizer.max_length to at most '
                f'{self.context_length}'
            )

    def _config(self, config: dict[str, Any] | None) -> Any:
        """Return transformers' config of the sizes that the user stated."""
        raise NotImplementedError

    def _part_of_config(self, config: Any, where: str) -> Any:
        """Return what a pretrained model's config says of this part of it.

        Raises:
            InputError: If it is a model of another family.
        """
        raise NotImplementedError

    def _part_of_model(self, model: nn.Module) -> nn.Module:
        """Return this part of transformers' model."""
        return model

    def _fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a pretrained model as this one takes them."""
        return state

    def _build(
        self, config: Any, attn_implementation: str | None, gradient_checkpointing: bool
    ) -> nn.Module:
        transformers = import_transformers()
        try:
            model = transformers.AutoModel.from_config(
                config, attn_implementation=attn_implementation
            )
        # an implementation that is unknown, or needs a package that is not installed
        except (ValueError, ImportError) as error:
            raise InputError(
                f'{type(self).__name__}: transformers cannot build this model: {error}'
            ) from error
        if gradient_checkpointing:
            name = 'activation_checkpointing_enable'  # its name since transformers 5
            enable = getattr(model, name, model.gradient_checkpointing_enable)
            # the reentrant kind gives no gradients behind frozen embeddings
            enable({'use_reentrant': False})
        return self._part_of_model(model)

    def _read_pretrained(self) -> None:
        if self._pretrained is None:
            return
        where, self._pretrained = self._pretrained, None
        whole, missing = read_model(where)
        self._part_of_config(whole.config, where)
        part = self._part_of_model(whole)
        state = part.state_dict()
        (path,) = (name for name, module in whole.named_modules() if module is part)
        lost = sorted(key for key in state if f'{path}.{key}'.lstrip('.') in missing)
        if lost:
            raise CheckpointError(
                f'{where}: lacks {len(lost)} weights of the model that its config.json '
                f'describes, such as {lost[0]}: download it again'
            )
        state = self._fitted(state)
        check_state_dict(self.model, state, where)
        self.model.load_state_dict(state)

    def _freeze(self) -> None:
        layers = len(self._layers())
        if not -1 <= self.frozen_stages <= layers:
            raise InputError(
                f'frozen_stages must be from -1 (nothing) to {layers} (the layers of '
                f'this {type(self).__name__}), got {self.frozen_stages}'
            )
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stem = [
            module
            for name, module in self.model.named_children()
            if name.startswith(_STEM)
        ]
        return [*stem, *list(self._layers())[: self.frozen_stages]]

    def _layers(self) -> list[nn.Module]:
        return list(self._layers_by_name().values())

    def _layers_by_name(self) -> dict[str, nn.Module]:
        """Return the layers: the list of modules as long as the config says."""
        count = self.model.config.num_hidden_layers  # type: ignore[union-attr]
        for name, module in self.model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return {
                    f'{name}.{number}': layer for number, layer in enumerate(module)
                }
        return {}
