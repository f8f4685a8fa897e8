"""Every config key but the methods' own, which each method declares (``defaults`` in src/models/methods/*.py).

The names are VPT's and FreqFiT's, so that YAML files and command lines written for them run here; what became of keys
that no longer mean anything is in legacy.py. Choices come from the code that implements them, and that code brings
torch along: only catalogue.py imports this file.
"""

from ..data.pixels import NORMALIZE, PRESETS
from ..data.presets import AUGMENTS, DECODERS, DTYPES, INTERPOLATIONS, RESIZES
from ..data.tasks import TASKS
from ..models.head import STARTS
from ..models.recompute import LEVELS
from ..models.vit_models import FREQFIT_METHODS
from ..solver.losses import CLASS_WEIGHTS, LOSSES
from ..solver.lr_scheduler import SCHEDULES
from ..solver.optimizer import DECAYS, OPTIMIZERS
from .keys import MACHINE, SAMPLE, TASK, Section, flag, location, number, numbers, one_of, text, whole, wholes

COLOURS = "three numbers, red, green and blue in [0, 1], or []"
LAYOUTS = dict.fromkeys(layout.kind for task in TASKS.values() for layout in task.layouts)


def tree() -> Section:
    """Every key but the methods' own, declared."""
    cfg = Section()

    # Seed of initialisation, batch order, augmentation and dropout.
    cfg.SEED = whole(42, low=0, high=2**32 - 1)
    # Folder of the runs: each is written to OUTPUT_DIR/<data>/<backbone>/<methods>/lr..._wd..._seed..._<hash of the
    # config>.
    cfg.OUTPUT_DIR = location("./output", role=MACHINE)
    # Weights & Biases: the project to log to; "": none. Needs the package wandb. Account, host and offline mode come
    # from wandb's own environment variables (WANDB_ENTITY, WANDB_MODE, ...).
    cfg.WANDB = text("", role=MACHINE)
    # MLflow: the tracking URI, such as "http://host:5000" or "sqlite:///mlflow.db"; "": none. Needs the package mlflow.
    # The environment variable MLFLOW_EXPERIMENT_NAME names the experiment, "vitune" by default.
    cfg.MLFLOW = location("", role=MACHINE)
    # Filter before every block: "freqfit" (complex), "freqfit_real" (FreqFit*), "ssf" (scale and shift); "": none.
    # Their keys are under MODEL.FREQFIT, MODEL.FREQFIT_REAL and MODEL.SCALE_SHIFT.
    cfg.FREQFIT = one_of("", ["", *FREQFIT_METHODS])
    # Device to compute on: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:<n>".
    cfg.DEVICE = text("auto", role=MACHINE)
    # Let cuDNN time its algorithms at the start and choose the fastest; only the patch convolution has any.
    cfg.CUDNN_BENCHMARK = flag(False)
    # Use only GPU operations that are reproducible bit for bit; some are slower. On a CPU all operations are.
    cfg.DETERMINISTIC = flag(False)

    cfg.DATA = Section()
    # The data set: a name that `vitune list tasks` shows, or an alias. "folder" is your own images.
    cfg.DATA.NAME = text("", role=TASK)
    # Folder of the data set on disk; not needed for digits, which ship with scikit-learn.
    cfg.DATA.DATAPATH = location("", role=TASK)
    # The pre-trained backbone: a name that `vitune list backbones` shows, timm:<name>, or hf:<folder or Hub name> of a
    # transformers checkpoint.
    cfg.DATA.FEATURE = text("")
    # Size of the network's input: CROPSIZE x CROPSIZE pixels; with RESIZE native, that many pixels in any shape.
    cfg.DATA.CROPSIZE = whole(224, low=1, unit="pixels")
    # [height, width] in pixels, for images that are not square; empty: CROPSIZE.
    cfg.DATA.IMAGE_SIZE = wholes([], lengths=(0, 2), low=1, form="[height, width] in pixels, or []", unit="pixels")
    # Number of classes; -1: that of the data set. A number that differs from the data set's is an error.
    cfg.DATA.NUMBER_CLASSES = whole(-1, low=2, also=(-1,), role=TASK)
    # Images per training step, summed over all processes.
    cfg.DATA.BATCH_SIZE = whole(32, low=1, unit="images")
    # Skip the last, incomplete batch of a training epoch; which images that leaves out differs between epochs.
    cfg.DATA.DROP_LAST = flag(False)
    # Images per evaluation step; 0: as many as in training on a CPU, four times as many on a GPU, up to 256.
    cfg.DATA.EVAL_BATCH_SIZE = whole(0, low=0, unit="images")
    # Images to train on: "train" (validating on val) or "trainval" (without validation); "": the task's own choice, see
    # src/data/tasks.py.
    cfg.DATA.TRAIN_SPLIT = one_of("", ["", "train", "trainval"], role=SAMPLE)
    # Do not read the test set; for tuning on val.
    cfg.DATA.NO_TEST = flag(False, role=SAMPLE)
    # Train even where there is neither a validation nor a test set, and the result has no accuracy: for a model whose
    # accuracy is known otherwise, as `vitune fit` knows it.
    cfg.DATA.UNMEASURED = flag(False, role=SAMPLE)
    # Fraction of the training images to use, stratified by class; the selection is the same for every SEED.
    cfg.DATA.PERCENTAGE = number(1.0, above=0, high=1, role=SAMPLE)
    # Fraction of train/ that becomes val if a folder has no val/; stratified, and the same for every SEED.
    cfg.DATA.VAL_FRACTION = number(0.2, above=0, below=1, role=SAMPLE)
    # Fraction of the images that becomes test if class folders come without train/ and test/; stratified, and the same
    # for every SEED. VAL_FRACTION then refers to the rest.
    cfg.DATA.TEST_FRACTION = number(0.2, above=0, below=1, role=SAMPLE)
    # Layout of the data set in DATAPATH, where it may have several: "tfds", "noah", "fgvc", "lists", "torchvision",
    # "folder", "shards"; "": the first of the task's layouts that is found.
    cfg.DATA.SOURCE = one_of("", ["", *LAYOUTS], role=SAMPLE)
    # Version of a TFDS directory, if there are several; "": the one that VPT and FreqFiT use, else the newest.
    cfg.DATA.VERSION = text("", role=TASK)
    # Training images per class; 0: all. Few-shot tasks have lists for 1, 2, 4, 8 and 16, and 0 means 16 there.
    cfg.DATA.SHOTS = whole(0, low=0, unit="images", role=SAMPLE)
    # Which of several published splits to use (few-shot lists, subsets of many-shot tasks), or the seed that draws one.
    cfg.DATA.SPLIT_SEED = whole(0, low=0, high=2**32 - 1, role=SAMPLE)
    # A list of training images, instead of the data set's own: lines "<image> <label>", or indices into its train set,
    # one per line or in a .npy file; if that has two dimensions, SPLIT_SEED chooses the row.
    cfg.DATA.TRAIN_LIST = location("", role=TASK)
    # A list of validation images, as TRAIN_LIST.
    cfg.DATA.VAL_LIST = location("", role=TASK)
    # A list of test images, as TRAIN_LIST; indices refer to the test set.
    cfg.DATA.TEST_LIST = location("", role=TASK)
    # Preset of the pixel pipeline: "vpt" (VPT and FreqFiT), "noah" (NOAH, SPT), "study" (the unifying study),
    # "backbone" (as in its pre-training). The table is in src/data/pixels.py; the keys from DECODER to DTYPE change
    # parts of it.
    cfg.DATA.PIXELS = one_of("vpt", PRESETS)
    # Decoder of JPEG files: "tf" (TensorFlow's fast inverse DCT) or "pil" (Pillow's accurate one); "": by PIXELS.
    cfg.DATA.DECODER = one_of("", ["", *DECODERS])
    # White level of images with more than 8 bits per channel, such as 4095 for 12 bits stored in 16, or 255 for floats
    # up to 255; 0: 65535 for integers, 1 for floats, and values outside of that range are an error.
    cfg.DATA.WHITE = number(0.0, low=0)
    # Largest image to decode: height times width. Decoding takes 7 bytes of memory per pixel; larger images are treated
    # as broken.
    cfg.DATA.MAX_PIXELS = whole(134_217_728, low=1, unit="pixels")
    # Encode every image as JPEG with this quality first (1 to 100, colours at half the resolution), as in the VTAB-1k
    # folders that circulate (75); 0: leave images as they are.
    cfg.DATA.JPEG_QUALITY = whole(0, low=0, high=100)
    # Resizing in evaluation: "squash" (to the input size), "crop" (the shorter side to 8/7 of it, then the centre) or
    # "squash_crop" (both sides to 8/7 of it, then the centre), rounded down; "": by the task, and "crop" with AUGMENT
    # crop_flip. "native", also in training, for NaFlex networks (timm:naflexvit_*): every image keeps its aspect ratio,
    # as large as the patches of the input size can cover it.
    cfg.DATA.RESIZE = one_of("", ["", *RESIZES])
    # Interpolation: "bilinear", "bicubic", "bilinear_tf1" (TensorFlow 1's, as in VPT and FreqFiT: output pixel i of n
    # reads position i * N / n, not (i + 0.5) * N / n - 0.5; never antialiased) or "backbone" (as in its pre-training);
    # "": by PIXELS.
    cfg.DATA.INTERPOLATION = one_of("", ["", *INTERPOLATIONS, "backbone"])
    # Antialiasing: "always" (as Pillow's resize) or "never" (TensorFlow's default); "": by PIXELS. "bilinear" with
    # "never" gives the pixels of TensorFlow 2's tf.image.resize.
    cfg.DATA.ANTIALIAS = one_of("", ["", "always", "never"])
    # Mean and standard deviation of the inputs: "imagenet", "inception" (0.5), "clip", "backbone" (those of its
    # pre-training) or "none" (pixels in [0, 1]); "": by PIXELS.
    cfg.DATA.NORMALIZE = one_of("", ["", *NORMALIZE, "backbone"])
    # Mean of red, green and blue in [0, 1]; empty: by NORMALIZE.
    cfg.DATA.MEAN = numbers([], lengths=(0, 3), form=COLOURS)
    # Standard deviations of red, green and blue in [0, 1]; empty: by NORMALIZE.
    cfg.DATA.STD = numbers([], lengths=(0, 3), form=COLOURS)
    # Type of resized pixels: "uint8" (off by at most 1 of 255) or "float32" (exact, four times the memory).
    cfg.DATA.DTYPE = one_of("uint8", DTYPES)
    # Crops and flips in training: "none"; "flip"; "crop_flip" (random crop of an image resized to 8/7 of the input
    # size); "rrc_flip" (random resized crop); "rrc_flips" (flips upside down as well). "": the task's own choice.
    # "auto": "crop_flip", but "none" if the head alone trains, so that an image's features are computed only once.
    cfg.DATA.AUGMENT = one_of("", ["", *AUGMENTS, "auto"])
    # Augmentation policy, after AUGMENT: "randaugment" or "trivialaugment" (torchvision's), one of timm's policies,
    # such as "rand-m9-mstd0.5-inc1", or "none"; "": the task's own choice.
    cfg.DATA.AUTO_AUGMENT = text("")
    # Strength of random brightness, contrast and saturation in training; 0: none.
    cfg.DATA.COLOR_JITTER = number(0.0, low=0, high=1)
    # Probability of erasing a random rectangle in training; -1: the task's own choice.
    cfg.DATA.RANDOM_ERASING = number(-1.0, low=0, high=1, also=(-1,))
    # Mixup's alpha; 0: no Mixup. If CutMix is on as well, each batch gets one of the two.
    cfg.DATA.MIXUP = number(0.0, low=0)
    # CutMix's alpha; 0: no CutMix.
    cfg.DATA.CUTMIX = number(0.0, low=0)
    # What to do about image files that cannot be decoded: "stop" and list them all, or "skip" them and list them in the
    # result.
    cfg.DATA.CORRUPT = one_of("stop", ["stop", "skip"])
    # Splits whose decoded images are cached on disk for later epochs and runs: "train" (and val), "all" (test as well)
    # or "off".
    cfg.DATA.CACHE = one_of("train", ["off", "train", "all"], role=MACHINE)
    # Folder of the image cache; "": $XDG_CACHE_HOME/vitune/images, or ~/.cache/vitune/images.
    cfg.DATA.CACHE_DIR = location("", role=MACHINE)
    # Most GiB of decoded images that a run caches; a split that does not fit is decoded again in every epoch.
    cfg.DATA.CACHE_GB = number(16.0, low=0, unit="GiB", role=MACHINE)
    # Where cached images are held during a run: "disk" (memory-mapped), "memory" or "device" (the GPU's memory).
    cfg.DATA.CACHE_PLACE = one_of("disk", ["disk", "memory", "device"], role=MACHINE)
    # Activations of the frozen layers in front of the first trainable module: "auto" computes them once per image of
    # train and val, and caches them on disk beside the images (unless CACHE is "off"); "off" computes them in every
    # epoch, as is done anyway if augmentation is random.
    cfg.DATA.CACHE_FEATURES = one_of("auto", ["auto", "off"], role=MACHINE)
    # Most GiB of activations that a run caches; if they take more, they are computed in every epoch. Those on disk,
    # together with the images of train and val, take at most CACHE_GB; those in memory, a quarter of it.
    cfg.DATA.CACHE_FEATURES_GB = number(16.0, low=0, unit="GiB", role=MACHINE)
    # Threads that decode images.
    cfg.DATA.NUM_WORKERS = whole(4, low=0, high=1024, unit="threads", role=MACHINE)
    # Whether an image may have several labels; no source supports that yet.
    cfg.DATA.MULTILABEL = flag(False)
    # Class weights in the loss: "none", "inv" (1 / images of the class) or "inv_sqrt"; their mean is one.
    cfg.DATA.CLASS_WEIGHTS_TYPE = one_of("none", CLASS_WEIGHTS)

    cfg.MODEL = Section()
    # VPT's key for the kind of backbone; it has one value, because DATA.FEATURE chooses the backbone.
    cfg.MODEL.TYPE = one_of("vit", ["vit"])
    # What to tune: "linear" (the head alone), or methods of src/models/vit_models.py joined by "+", such as "lora+ssf".
    cfg.MODEL.TRANSFER_TYPE = text("linear")
    # Folder with the pre-trained weights.
    cfg.MODEL.MODEL_ROOT = location("pretrained", role=MACHINE)
    # Weights file to read instead of the backbone's usual one; it must have the same format.
    cfg.MODEL.WEIGHT_PATH = location("")
    # How position embeddings are resized for other image sizes: "bilinear" (VPT), "bicubic" (timm) or "auto" (bicubic
    # for DINOv2, bilinear for others); timm:<name> is always bicubic.
    cfg.MODEL.POS_EMBED_RESIZE = one_of("auto", ["auto", "bilinear", "bicubic"])
    # Pooling of a ViT's tokens: "token" (the class token) or "avg" (the average of the patches, without prompts); "":
    # as the backbone was pre-trained. Only poolings for which the weights have a norm are possible.
    cfg.MODEL.POOL = one_of("", ["", "token", "avg"])
    # Number of hidden layers in the head.
    cfg.MODEL.MLP_NUM = whole(0, low=0)
    # Initialisation of the head: "vpt" (random, large for few classes; for SGD with large learning rates), "zero",
    # "linear" (that of torch's nn.Linear, as in FacT, Convpass, RepAdapter and the unifying study), "trunc_normal" (std
    # 0.02, bias zero, as in SSF, SPT and timm's ViTs) or "zero_shot" (CLIP backbones: CLIP's projection, then the text
    # features of the class names, from the same weights file). "auto": "vpt" with sgd and in settings written for VPT
    # or FreqFiT, "zero" otherwise; a run's config.yaml records which.
    cfg.MODEL.HEAD_INIT = one_of("auto", ["auto", *STARTS, "zero_shot"])
    # Prompt templates for HEAD_INIT zero_shot, with {} in the place of the class name: "imagenet" (the 80 that OpenAI
    # used there), a single one such as "a photo of a {}.", or a file with one per line.
    cfg.MODEL.HEAD_TEMPLATES = location("imagenet")
    # File of class names for HEAD_INIT zero_shot, one per line in the order of the labels; "": the data set's own names
    # ("golden_retriever" is read as "golden retriever"), and for ImageNet's classes those of open_clip.
    cfg.MODEL.HEAD_CLASS_NAMES = location("", role=TASK)
    # Compile the model with torch.compile: a slower start, then faster steps on a GPU.
    cfg.MODEL.COMPILE = flag(False)
    # Mode of torch.compile: "default", "reduce-overhead" (CUDA graphs, for small batches) or "max-autotune" (times
    # kernels first).
    cfg.MODEL.COMPILE_MODE = one_of("default", ["default", "reduce-overhead", "max-autotune"])
    # What the forward pass keeps for the backward pass, with the same gradients to the bit. "off": all that is needed;
    # "auto": in every block about half of what full fine-tuning needs, for the least work done again; "blocks": what
    # enters a block alone.
    cfg.MODEL.RECOMPUTE = one_of("off", LEVELS)
    # Another name of RECOMPUTE blocks.
    cfg.MODEL.GRAD_CHECKPOINT = flag(False)
    # Save what was learned (tuned.safetensors) and, after every epoch, the state needed to resume (last.ckpt).
    cfg.MODEL.SAVE_CKPT = flag(True, role=MACHINE)

    cfg.SOLVER = Section()
    # Optimizer: "sgd", "adam" (weight decay as L2 in the gradient), "adamw" (decoupled weight decay) or, for the head
    # alone without random augmentation, "lbfgs": a logistic regression whose penalty is chosen on val, without epochs,
    # learning rate or weight decay. "auto": "lbfgs" where possible, else "adamw".
    cfg.SOLVER.OPTIMIZER = one_of("sgd", [*OPTIMIZERS, "lbfgs", "auto"])
    # For lbfgs: penalties whose solutions are averaged, of mean cross-entropy + penalty / 2 |W|^2 on features scaled to
    # a standard deviation of 1; []: the one penalty that is best on val, or, without val, on a fifth of the training
    # images.
    cfg.SOLVER.PENALTIES = numbers([], above=0, form="a list of numbers above 0, or []")
    # Epsilon of adam and adamw, added to the root of the second moment; 0: 1e-8 for adam, 1e-6 for adamw (as in VPT).
    cfg.SOLVER.EPS = number(0.0, low=0)
    # The highest learning rate; it is not scaled by the batch size. -1, with adamw: the one that suits the methods
    # (``adamw_lr`` in src/models/methods), 0.03 for the head alone.
    cfg.SOLVER.BASE_LR = number(0.01, low=0, also=(-1,))
    # Weight decay of the parameters that SOLVER.DECAY selects.
    cfg.SOLVER.WEIGHT_DECAY = number(0.0001, low=0)
    # Which parameters decay: "vpt" (all except the head's last bias; with adamw, all except biases), "timm" (all except
    # those of one dimension and the backbone's own exceptions), "all" or "none". "auto": "vpt"; but with adamw, what
    # ssf, rlrr and spt_* train decays as in their original code, unless the settings were written for VPT or FreqFiT. A
    # run's wiring.txt and result.json list the parameters that decay.
    cfg.SOLVER.DECAY = one_of("auto", ["auto", *DECAYS])
    # Layer-wise learning rate decay, for full fine-tuning (end2end): each layer's learning rate is that of the next one
    # times this, and the head's is BASE_LR; 1: no decay. As timm's param_groups_layer_decay.
    cfg.SOLVER.LAYER_DECAY = number(1.0, above=0, high=1)
    # Learning rate of biases, as a multiple of BASE_LR; the head's last bias is excepted.
    cfg.SOLVER.BIAS_MULTIPLIER = number(1.0, low=0)
    # Momentum of sgd.
    cfg.SOLVER.MOMENTUM = number(0.9, low=0, high=1)
    # Schedule of the learning rate. "cosine": linear warm-up, then half a cosine to MIN_LR; "timm": the same, but the
    # cosine begins with the run, and the warm-up replaces its first part (timm's CosineLRScheduler); "constant":
    # warm-up, then BASE_LR.
    cfg.SOLVER.SCHEDULER = one_of("cosine", SCHEDULES)
    # When the learning rate changes: "epoch" (VPT: the first warm-up epoch has learning rate WARMUP_LR) or "step".
    cfg.SOLVER.SCHEDULE_PER = one_of("epoch", ["epoch", "step"])
    # Give each epoch the learning rate of the epoch before, and the second one that of the first: the effect of
    # stepping a timm scheduler after an epoch with that epoch's number (NOAH, FacT, Convpass, RepAdapter, RLRR, SPT).
    cfg.SOLVER.SCHEDULE_LATE = flag(False)
    # Learning rate at which the warm-up starts.
    cfg.SOLVER.WARMUP_LR = number(0.0, low=0)
    # Learning rate at which the cosine ends.
    cfg.SOLVER.MIN_LR = number(0.0, low=0)
    # Epochs of warm-up.
    cfg.SOLVER.WARMUP_EPOCH = whole(5, low=0, unit="epochs")
    # Steps of warm-up, instead of WARMUP_EPOCH; 0: WARMUP_EPOCH. The learning rate then changes per step, as with
    # MAX_STEPS, and both count steps from 0, as Hugging Face's get_cosine_schedule_with_warmup does.
    cfg.SOLVER.WARMUP_STEPS = whole(0, low=0, unit="steps")
    # Epochs in total, including the warm-up.
    cfg.SOLVER.TOTAL_EPOCH = whole(30, low=1, unit="epochs")
    # Steps in total, instead of TOTAL_EPOCH, even if the last epoch is incomplete; 0: TOTAL_EPOCH.
    cfg.SOLVER.MAX_STEPS = whole(0, low=0, unit="steps")
    # Least number of steps: more epochs than TOTAL_EPOCH if those have fewer, for small data sets; 0: no minimum; -1:
    # 300, which suit most methods, or 2000 for the head alone, unless TOTAL_EPOCH is set later, as on a command line.
    cfg.SOLVER.MIN_STEPS = whole(0, low=0, also=(-1,), unit="steps")
    # Epochs with MIN_LR after TOTAL_EPOCH (timm's cooldown).
    cfg.SOLVER.COOLDOWN_EPOCH = whole(0, low=0, unit="epochs")
    # Stop after this many epochs, on the schedule of TOTAL_EPOCH; 0: never.
    cfg.SOLVER.SEARCH_EPOCH = whole(0, low=0, unit="epochs")
    # Stop when the validation accuracy has not improved for this many epochs, and use the best epoch's weights. Needs
    # DATA.TRAIN_SPLIT "train". With TOTAL_EPOCH or more it never stops, and the last epoch's weights are used.
    cfg.SOLVER.PATIENCE = whole(300, low=1, unit="epochs")
    # Validate after every EVAL_EVERY-th epoch and after the last; 0: after the last only.
    cfg.SOLVER.EVAL_EVERY = whole(1, low=0, unit="epochs")
    # Also test after every epoch, and record the best accuracy in the result as test_best_epoch: many papers print it,
    # though it is selected on the test set. Nothing is selected by it here, and reports show it only in columns of that
    # name.
    cfg.SOLVER.BEST_TEST_EPOCH = flag(False)
    # Also write last.ckpt after every SAVE_EVERY-th step, for long epochs; 0: after every epoch only.
    cfg.SOLVER.SAVE_EVERY = whole(0, low=0, unit="steps", role=MACHINE)
    # Drop-path rate of the last block's branches, rising linearly from 0 at the first, in training only. It also acts
    # in frozen ViTs, whose dropout stays off; what a method adds within a branch is dropped with it. 0.0: the
    # backbone's own rate, which acts in end2end, and that of spt_* (VIT_DROP_PATH).
    cfg.SOLVER.DROP_PATH = number(0.0, low=0, below=1)
    # Decay per step of an exponential moving average of all that is learned, such as SSF's 0.9998; 0.0: no average.
    # With it, validation, test, tuned.safetensors and exports use the averaged weights; last.ckpt holds both.
    cfg.SOLVER.EMA = number(0.0, low=0, below=1)
    # Loss: "softmax" (cross-entropy) or "sigmoid" (one binary cross-entropy per class).
    cfg.SOLVER.LOSS = one_of("softmax", LOSSES)
    # Label smoothing: the share of the target that is spread evenly over all classes (softmax only).
    cfg.SOLVER.LABEL_SMOOTHING = number(0.0, low=0, high=1)
    # Precision of the computation: "off" (float32), "bf16" (autocast to bfloat16), "fp16" (autocast to float16, with
    # scaled gradients) or "auto" (bf16 where the device computes in it, else fp16 on a GPU and off on a CPU).
    cfg.SOLVER.AMP = one_of("off", ["off", "bf16", "fp16", "auto"])
    # Let a GPU round the factors of float32 products to 10 bits of mantissa (TensorFloat-32).
    cfg.SOLVER.TF32 = flag(False)
    # Gradient accumulation: compute each batch in this many pieces and add up their gradients; less memory, the same
    # step.
    cfg.SOLVER.ACCUMULATE = whole(1, low=1)
    # Most GiB that tensors take on the device, beside what torch and the driver need; 0.0: no limit. Within it,
    # MODEL.RECOMPUTE, SOLVER.ACCUMULATE and DATA.EVAL_BATCH_SIZE are chosen where they have their defaults, so that a
    # step takes the least time. A run in which nothing fits is refused before data are read.
    cfg.SOLVER.MEMORY_GB = number(0.0, low=0, unit="GiB", role=MACHINE)
    # Spread weights, gradients and optimizer states over the processes of torchrun (FSDP2), for end2end on backbones
    # that are too large for one GPU; otherwise every process holds all of them (DDP).
    cfg.SOLVER.FSDP = flag(False)
    # Largest norm of the gradient; larger gradients are scaled down to it. 0: no limit.
    cfg.SOLVER.CLIP_GRAD = number(0.0, low=0)
    return cfg
