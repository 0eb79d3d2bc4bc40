"""Many adapters in one pass: runs that share base, data and batch size train together (``hydra/launcher=packed``).

The runs of a pack are ordinary runs: ``pipeline.run`` with a record, a Trainer, an optimizer, a schedule, checkpoints
and scores of its own for each. Only what costs most is done together: the forward and backward pass of a batch.
``sweep.packs`` lets the runs take turns within one thread (greenlets). Where Trainer would compute the loss of a
batch, a run hands the batch over (``Member.take``) and sleeps. Once every run of the pack sleeps there, their batches
are stacked (adapters x rows), one forward and one backward pass over one fork of the base gives each run its loss and
its gradients (``Host``), and the runs continue in turn, each with its own clipping and its own optimizer step. So
everything besides the pass is the code of a run that trains alone, resuming from checkpoints included, and runs of a
pack need not be at the same step: when one ends, fails or waits to be resumed, the others go on.

What makes the result that of a run alone, up to the rounding of float32:

- rows never see each other: attention, norms and losses are of a row; a short batch is filled up with rows whose loss
  nobody reads, and with padding on the right, which no text position sees;
- each target module adds each adapter's low-rank product to its own rows (``layers``): one batched product over
  adapters, whose ranks are filled up with zeros that no gradient is taken of; IA3 multiplies its own rows;
- each run's loss is divided by the tokens of its own step, and its gradients come from its own rows alone, so that a
  loss that is not finite spoils nothing but its own run, which fails as it would alone;
- each run has its own random state (``Ambient``), which is put in place whenever it continues, and dropout is drawn
  from it, module by module in the shape that the run alone would have. On the CPU the masks are the same numbers;
  kernels of a GPU draw others, of the same distribution.

What cannot be done together trains alone, and the console says why: other methods, DoRA (its norms are of whole
weights), initializations that write into base weights, trained biases or whole modules, quantized bases, float16
(loss scaling), gradient checkpointing, sharding, distillation, and bases with a dropout of their own
(``eligible``, ``Host.admit``). How many go together is decided when the first run of a pack has its first batch, by
``estimate.packing``: from the memory that another adapter takes, and from a measured limit of the tokens in a pass.
If memory runs out all the same, passes take half as many runs from then on.
"""
