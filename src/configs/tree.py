"""Every config key but the methods' own, which each method declares (``defaults`` in src/models/methods/*.py).

The names are VPT's and FreqFiT's, so that YAML files and command lines written for them run here; what became of keys
that no longer mean anything is in legacy.py. Choices come from the code that implements them, and that code brings
torch along: only catalogue.py imports this file.
"""

from ..data.pixels import NORMALIZE, PRESETS
from ..data.presets import AUGMENTS, DECODERS, DTYPES, INTERPOLATIONS, RESIZES
from ..data.tasks import TASKS
from ..models.head import STARTS
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
    # Runs are written to OUTPUT_DIR/<data>/<backbone>/<methods>/lr..._wd..._seed..._<hash of the config>.
    cfg.OUTPUT_DIR = location("./output", role=MACHINE)
    # Weights & Biases: the project that is told how the run goes, "" for none. Needs the package wandb; who, where and
    # whether offline is said by wandb's own variables (WANDB_ENTITY, WANDB_MODE, ...).
    cfg.WANDB = text("", role=MACHINE)
    # MLflow: the tracking URI, such as "http://host:5000" or "sqlite:///mlflow.db", "" for none. Needs the package
    # mlflow; the experiment is MLFLOW_EXPERIMENT_NAME, or "vitune".
    cfg.MLFLOW = location("", role=MACHINE)
    # Filter before every block: "freqfit" (complex), "freqfit_real" (FreqFit*), "ssf" (scale and shift), "" for none.
    # Their own keys are under MODEL.FREQFIT, MODEL.FREQFIT_REAL and MODEL.SCALE_SHIFT.
    cfg.FREQFIT = one_of("", ["", *FREQFIT_METHODS])
    # Where to compute: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:<n>".
    cfg.DEVICE = text("auto", role=MACHINE)
    # Let cuDNN time its algorithms at the start (only the patch convolution has any).
    cfg.CUDNN_BENCHMARK = flag(False)
    # Use only GPU operations that give the same bits every time, some of them slower. On a CPU all do.
    cfg.DETERMINISTIC = flag(False)

    cfg.DATA = Section()
    # The data set: a name or alias in src/data/tasks.py. "folder" is your own images.
    cfg.DATA.NAME = text("", role=TASK)
    # Its folder on disk; not needed for digits, which ship with scikit-learn.
    cfg.DATA.DATAPATH = location("", role=TASK)
    # The pre-trained backbone: a name in src/models/vit_backbones/zoo.py, or timm:<name>.
    cfg.DATA.FEATURE = text("")
    # Images are resized to CROPSIZE x CROPSIZE pixels.
    cfg.DATA.CROPSIZE = whole(224, low=1, unit="pixels")
    # [height, width] in pixels, for images that are not square; empty: CROPSIZE.
    cfg.DATA.IMAGE_SIZE = wholes([], lengths=(0, 2), low=1, form="[height, width] in pixels, or []", unit="pixels")
    # Number of classes; -1: what the data set has. Another number than the data set's is an error.
    cfg.DATA.NUMBER_CLASSES = whole(-1, low=2, also=(-1,), role=TASK)
    # Images per training step, over all processes.
    cfg.DATA.BATCH_SIZE = whole(32, low=1, unit="images")
    # Leave out the last, incomplete batch of a training epoch: other images in every epoch.
    cfg.DATA.DROP_LAST = flag(False)
    # Images per evaluation step; 0: as in training on a CPU, on a GPU four times as many, up to 256.
    cfg.DATA.EVAL_BATCH_SIZE = whole(0, low=0, unit="images")
    # What trains: "train" (validates on val), "trainval" (no validation), "" (the task's own choice, see tasks.py).
    cfg.DATA.TRAIN_SPLIT = one_of("", ["", "train", "trainval"], role=SAMPLE)
    # Do not read the test set: for tuning on val.
    cfg.DATA.NO_TEST = flag(False, role=SAMPLE)
    # Fraction of the training images used, stratified over classes; the choice is the same for every SEED.
    cfg.DATA.PERCENTAGE = number(1.0, above=0, high=1, role=SAMPLE)
    # Fraction of train/ that becomes val where a folder has no val/; stratified, the same for every SEED.
    cfg.DATA.VAL_FRACTION = number(0.2, above=0, below=1, role=SAMPLE)
    # Fraction of the images that becomes test where class folders come without train/ and test/; stratified, always the
    # same. VAL_FRACTION is then of what is left.
    cfg.DATA.TEST_FRACTION = number(0.2, above=0, below=1, role=SAMPLE)
    # How the data set lies in DATAPATH, where there is a choice: "tfds", "noah", "fgvc", "lists", "torchvision",
    # "folder", "shards"; "": the first of the task's that is there.
    cfg.DATA.SOURCE = one_of("", ["", *LAYOUTS], role=SAMPLE)
    # Version of a TFDS directory, where several are there; "": the one that VPT and FreqFiT use, else the newest.
    cfg.DATA.VERSION = text("", role=TASK)
    # Training images of each class, 0 for all; few-shot tasks have lists for 1, 2, 4, 8 and 16, and 0 means 16 there.
    cfg.DATA.SHOTS = whole(0, low=0, unit="images", role=SAMPLE)
    # Which of several published splits (few-shot lists, subsets of many-shot tasks), or the seed that draws one.
    cfg.DATA.SPLIT_SEED = whole(0, low=0, high=2**32 - 1, role=SAMPLE)
    # A list file of what trains, instead of the data set's own: lines "<image> <label>", or indices into its train set,
    # one a line or in a .npy file; of one with two dimensions, SPLIT_SEED chooses the row.
    cfg.DATA.TRAIN_LIST = location("", role=TASK)
    # The same for validation.
    cfg.DATA.VAL_LIST = location("", role=TASK)
    # The same for testing; indices count the test set.
    cfg.DATA.TEST_LIST = location("", role=TASK)
    # What is done with images: "vpt" (VPT and FreqFiT), "noah" (NOAH, SPT), "study" (the unifying study),
    # "backbone" (as in its pre-training). The table is in src/data/pixels.py; the next keys change parts of it.
    cfg.DATA.PIXELS = one_of("vpt", PRESETS)
    # How JPEG files are decoded: "tf" (TensorFlow's fast inverse DCT), "pil" (Pillow's accurate one), "": by PIXELS.
    cfg.DATA.DECODER = one_of("", ["", *DECODERS])
    # The value that is white in images with more than 8 bits a channel, such as 4095 for 12 bits in 16, 255 for floats
    # up to 255; 0: 65535 of integers, 1 of floats, and values outside of that are an error.
    cfg.DATA.WHITE = number(0.0, low=0)
    # Height times width of the largest image that is decoded, which takes 7 bytes of memory for each; larger ones are
    # treated as broken.
    cfg.DATA.MAX_PIXELS = whole(134_217_728, low=1, unit="pixels")
    # Encode every image as JPEG with this quality first (1 to 100, colours at half the resolution), as was done to the
    # VTAB-1k folders that circulate (75); 0: images as they are.
    cfg.DATA.JPEG_QUALITY = whole(0, low=0, high=100)
    # In evaluation: "squash" (to the input size), "crop" (the shorter side to 8/7 of it, the middle), "squash_crop" (to
    # 8/7 of it, the middle), rounded down, "": by the task, and "crop" with AUGMENT crop_flip.
    cfg.DATA.RESIZE = one_of("", ["", *RESIZES])
    # "bilinear", "bicubic", "bilinear_tf1" (TensorFlow 1's, as in VPT and FreqFiT: output pixel i of n reads position
    # i * N / n, not (i + 0.5) * N / n - 0.5; never antialiased), "backbone" (as in its pre-training), "": by PIXELS.
    cfg.DATA.INTERPOLATION = one_of("", ["", *INTERPOLATIONS, "backbone"])
    # "always" (Pillow's resize), "never" (TensorFlow's default), "": by PIXELS. With "bilinear" and "never" pixels are
    # those of TensorFlow 2's tf.image.resize.
    cfg.DATA.ANTIALIAS = one_of("", ["", "always", "never"])
    # "imagenet", "inception" (0.5), "clip", "backbone" (of its pre-training), "none" (pixels in [0, 1]), "": by PIXELS.
    cfg.DATA.NORMALIZE = one_of("", ["", *NORMALIZE, "backbone"])
    # Mean of red, green and blue in [0, 1]; empty: by NORMALIZE.
    cfg.DATA.MEAN = numbers([], lengths=(0, 3), form=COLOURS)
    # Their standard deviations; empty: by NORMALIZE.
    cfg.DATA.STD = numbers([], lengths=(0, 3), form=COLOURS)
    # Type of resized pixels: "uint8" (at most 1 of 255 off), or "float32" (exact, four times the memory).
    cfg.DATA.DTYPE = one_of("uint8", DTYPES)
    # Crops and flips in training: "none"; "flip"; "crop_flip" (random crop of an image resized to 8/7 of the input
    # size); "rrc_flip" (random resized crop); "rrc_flips" (also upside down). "": the task's own choice. "auto":
    # "crop_flip", but "none" where the head alone trains: what the network makes of an image is then computed once.
    cfg.DATA.AUGMENT = one_of("", ["", *AUGMENTS, "auto"])
    # After that: "randaugment", "trivialaugment" (torchvision's), a policy of timm's ("rand-m9-mstd0.5-inc1"), "none";
    # "": the task's own choice.
    cfg.DATA.AUTO_AUGMENT = text("")
    # Strength of random brightness, contrast and saturation in training, 0 for none.
    cfg.DATA.COLOR_JITTER = number(0.0, low=0, high=1)
    # Probability of erasing a random rectangle in training; -1: the task's own choice.
    cfg.DATA.RANDOM_ERASING = number(-1.0, low=0, high=1, also=(-1,))
    # Mixup's alpha, 0 for none; with CutMix as well, each batch gets one of the two.
    cfg.DATA.MIXUP = number(0.0, low=0)
    # CutMix's alpha, 0 for none.
    cfg.DATA.CUTMIX = number(0.0, low=0)
    # Image files that cannot be decoded: "stop", with all of them listed, or "skip" and list them in the result.
    cfg.DATA.CORRUPT = one_of("stop", ["stop", "skip"])
    # Whose decoded images are kept on disk for later epochs and runs: "train" (and val), "all" (and test) or "off".
    cfg.DATA.CACHE = one_of("train", ["off", "train", "all"], role=MACHINE)
    # Where; "": $XDG_CACHE_HOME/vitune/images, or ~/.cache/vitune/images.
    cfg.DATA.CACHE_DIR = location("", role=MACHINE)
    # A run keeps at most this many GiB of decoded images; a split that does not fit is decoded again in every epoch.
    cfg.DATA.CACHE_GB = number(16.0, low=0, unit="GiB", role=MACHINE)
    # Where kept images are while a run needs them: "disk" (mapped), "memory", or "device" (the GPU's memory).
    cfg.DATA.CACHE_PLACE = one_of("disk", ["disk", "memory", "device"], role=MACHINE)
    # Activations of the network's frozen first part, unless images look different in every epoch: "auto" computes them
    # once for every image of train and val, and keeps them on disk beside the images (not if CACHE is "off"); "off":
    # they are computed in every epoch.
    cfg.DATA.CACHE_FEATURES = one_of("auto", ["auto", "off"], role=MACHINE)
    # A run keeps at most this many GiB of them; if they take more, they are computed in every epoch. Those on disk and
    # the images of train and val take at most CACHE_GB, those in memory a quarter of it.
    cfg.DATA.CACHE_FEATURES_GB = number(16.0, low=0, unit="GiB", role=MACHINE)
    # Threads that decode images.
    cfg.DATA.NUM_WORKERS = whole(4, low=0, high=1024, unit="threads", role=MACHINE)
    # Whether an image may have several labels. No source here has such labels yet.
    cfg.DATA.MULTILABEL = flag(False)
    # Weights of the classes in the loss: "none", "inv" (1 / images of the class) or "inv_sqrt"; they average to one.
    cfg.DATA.CLASS_WEIGHTS_TYPE = one_of("none", CLASS_WEIGHTS)

    cfg.MODEL = Section()
    # VPT's name for the kind of backbone. Here every backbone is a ViT, chosen by DATA.FEATURE.
    cfg.MODEL.TYPE = one_of("vit", ["vit"])
    # What is tuned: "linear" (the head), or methods of src/models/vit_models.py joined by "+".
    cfg.MODEL.TRANSFER_TYPE = text("linear")
    # Folder with the pre-trained weights.
    cfg.MODEL.MODEL_ROOT = location("pretrained", role=MACHINE)
    # A weights file to read instead of the backbone's usual one; it must have the same format.
    cfg.MODEL.WEIGHT_PATH = location("")
    # How position embeddings are resized for other image sizes: "bilinear" (VPT), "bicubic" (timm), "auto" (DINOv2:
    # bicubic, others: bilinear; timm:<name> always bicubic).
    cfg.MODEL.POS_EMBED_RESIZE = one_of("auto", ["auto", "bilinear", "bicubic"])
    # What of a ViT's tokens the head gets: "token" (the class token), "avg" (the average of the patches, prompts left
    # out), "": as the backbone was pre-trained. Only what its weights have a norm for.
    cfg.MODEL.POOL = one_of("", ["", "token", "avg"])
    # Hidden layers of the head.
    cfg.MODEL.MLP_NUM = whole(0, low=0)
    # How the head starts: "vpt" (random, large for few classes: for SGD with large learning rates), "zero", "linear"
    # (torch's nn.Linear, as FacT, Convpass, RepAdapter and the unifying study have it), "trunc_normal" (std 0.02, bias
    # zero, as SSF, SPT and timm's ViTs have it), or "zero_shot" (CLIP backbones: CLIP's projection, then the text
    # features of the class names, from the same weights file). "auto": "vpt" with sgd and in settings written for VPT
    # or FreqFiT, "zero" with adam and adamw; a run's config.yaml says which.
    cfg.MODEL.HEAD_INIT = one_of("auto", ["auto", *STARTS, "zero_shot"])
    # Texts that a class name is put into, in the place of {}, for "zero_shot": "imagenet" (the 80 that OpenAI used
    # there), one such as "a photo of a {}.", or a file with one on each line.
    cfg.MODEL.HEAD_TEMPLATES = location("imagenet")
    # A file with one class name on each line, in the order of labels, for "zero_shot"; "": the data set's own names
    # ("golden_retriever" is read as "golden retriever"), and for ImageNet's classes those that open_clip has.
    cfg.MODEL.HEAD_CLASS_NAMES = location("", role=TASK)
    # Compile the model with torch.compile: a wait at the start, then faster steps on a GPU.
    cfg.MODEL.COMPILE = flag(False)
    # "default"; "reduce-overhead" (CUDA graphs, for small batches); "max-autotune" (measures kernels first).
    cfg.MODEL.COMPILE_MODE = one_of("default", ["default", "reduce-overhead", "max-autotune"])
    # Keep only what enters each block and compute the rest again in the backward pass: less memory, more time.
    cfg.MODEL.GRAD_CHECKPOINT = flag(False)
    # Write what was learned (tuned.safetensors) and, after every epoch, what is needed to resume (last.ckpt).
    cfg.MODEL.SAVE_CKPT = flag(True, role=MACHINE)

    cfg.SOLVER = Section()
    # "sgd", "adam" (L2 in the gradient), "adamw" (decoupled weight decay), or, for the head alone on images that look
    # the same every time, "lbfgs": a logistic regression whose penalty is chosen on val, without epochs, learning rate
    # or decay. "auto": "lbfgs" where it can be, else "adamw".
    cfg.SOLVER.OPTIMIZER = one_of("sgd", [*OPTIMIZERS, "lbfgs", "auto"])
    # What adam and adamw add to the root of the second moment; 0: 1e-8 for adam, 1e-6 for adamw (VPT's).
    cfg.SOLVER.EPS = number(0.0, low=0)
    # The highest learning rate, used as it is: not scaled by the batch size. -1, with adamw: the one that suits the
    # methods (``adamw_lr`` in src/models/methods), 0.03 for the head alone.
    cfg.SOLVER.BASE_LR = number(0.01, low=0, also=(-1,))
    # Weight decay of what SOLVER.DECAY names.
    cfg.SOLVER.WEIGHT_DECAY = number(0.0001, low=0)
    # What decays: "vpt" (all that trains but the head's last bias; with adamw, but every bias), "timm" (all but what
    # has one dimension and the backbone's own exceptions), "all", "none". "auto": "vpt"; but with adamw, what ssf, rlrr
    # and spt_* train decays as in their original code, unless the settings are written for VPT or FreqFiT. A run's
    # config.yaml says "vpt" where it comes to that, its wiring.txt and result.json who decays.
    cfg.SOLVER.DECAY = one_of("auto", ["auto", *DECAYS])
    # Layer-wise learning rates, for full fine-tuning (end2end): each layer of the ViT learns so many times as fast as
    # the next one, the head with BASE_LR; 1: all alike. As timm's param_groups_layer_decay.
    cfg.SOLVER.LAYER_DECAY = number(1.0, above=0, high=1)
    # Learning rate of biases, the head's last excepted, as a multiple of the others'.
    cfg.SOLVER.BIAS_MULTIPLIER = number(1.0, low=0)
    # Momentum of sgd.
    cfg.SOLVER.MOMENTUM = number(0.9, low=0, high=1)
    # "cosine": linear warm-up, then half a cosine to MIN_LR; "timm": the same, but the cosine begins with the run, and
    # the warm-up takes the place of its first part (timm's CosineLRScheduler); "constant": warm-up, then BASE_LR.
    cfg.SOLVER.SCHEDULER = one_of("cosine", SCHEDULES)
    # When the learning rate changes: "epoch" (VPT: the first warm-up epoch has learning rate WARMUP_LR) or "step".
    cfg.SOLVER.SCHEDULE_PER = one_of("epoch", ["epoch", "step"])
    # Each epoch has the learning rate of the one before, the first two the first one's: what becomes of a timm
    # scheduler that is stepped after an epoch with that epoch's number (NOAH, FacT, Convpass, RepAdapter, RLRR, SPT).
    cfg.SOLVER.SCHEDULE_LATE = flag(False)
    # Where the warm-up starts.
    cfg.SOLVER.WARMUP_LR = number(0.0, low=0)
    # Where the cosine ends.
    cfg.SOLVER.MIN_LR = number(0.0, low=0)
    # Epochs of warm-up.
    cfg.SOLVER.WARMUP_EPOCH = whole(5, low=0, unit="epochs")
    # The same in steps, instead; 0: WARMUP_EPOCH. The learning rate then changes per step, as for MAX_STEPS, and both
    # count steps from 0, as Hugging Face's get_cosine_schedule_with_warmup does.
    cfg.SOLVER.WARMUP_STEPS = whole(0, low=0, unit="steps")
    # Epochs in all, warm-up included.
    cfg.SOLVER.TOTAL_EPOCH = whole(30, low=1, unit="epochs")
    # Steps in all, instead, whatever the last epoch has done by then; 0: TOTAL_EPOCH.
    cfg.SOLVER.MAX_STEPS = whole(0, low=0, unit="steps")
    # More epochs than TOTAL_EPOCH where these have fewer steps than this, for small data sets; 0: never; -1: 300, which
    # suit most methods, or 2000 for the head alone, unless TOTAL_EPOCH is set after it, as on a command line.
    cfg.SOLVER.MIN_STEPS = whole(0, low=0, also=(-1,), unit="steps")
    # More epochs behind TOTAL_EPOCH, with MIN_LR (timm's cooldown).
    cfg.SOLVER.COOLDOWN_EPOCH = whole(0, low=0, unit="epochs")
    # Stop after this many epochs, on the schedule of all; 0: never.
    cfg.SOLVER.SEARCH_EPOCH = whole(0, low=0, unit="epochs")
    # Stop when validation accuracy has not improved for this many epochs, and take the best epoch's weights. Needs
    # DATA.TRAIN_SPLIT "train"; as many as TOTAL_EPOCH or more: never, and the last epoch's weights are taken.
    cfg.SOLVER.PATIENCE = whole(300, low=1, unit="epochs")
    # Measure on the validation images after every so many epochs, and after the last; 0: after the last only.
    cfg.SOLVER.EVAL_EVERY = whole(1, low=0, unit="epochs")
    # Also test after every epoch, and record the best in the result, as test_best_epoch: many papers print it, though
    # it is chosen on the test set. Nothing is chosen by it here, and reports have it only in columns of that name.
    cfg.SOLVER.BEST_TEST_EPOCH = flag(False)
    # Write last.ckpt also after every so many steps, for long epochs; 0: after every epoch only.
    cfg.SOLVER.SAVE_EVERY = whole(0, low=0, unit="steps", role=MACHINE)
    # Drop-path of the last block's branches, rising from 0 at the first, in training only and on frozen ViTs too, whose
    # dropout stays off; what a method adds within a branch is dropped with it. 0.0: the backbone's own, which acts in
    # end2end, and that of spt_* (VIT_DROP_PATH).
    cfg.SOLVER.DROP_PATH = number(0.0, low=0, below=1)
    # Decay per step of an average of all that is learned, such as SSF's 0.9998; 0.0: none. With it validation, test,
    # tuned.safetensors and what is exported have the averaged weights; last.ckpt has both.
    cfg.SOLVER.EMA = number(0.0, low=0, below=1)
    # "softmax" (cross-entropy) or "sigmoid" (one binary cross-entropy per class).
    cfg.SOLVER.LOSS = one_of("softmax", LOSSES)
    # Share of the target spread evenly over all classes (softmax only).
    cfg.SOLVER.LABEL_SMOOTHING = number(0.0, low=0, high=1)
    # Precision of the computation: "off" (float32), "bf16" (autocast to bfloat16), "fp16" (autocast to float16, with
    # scaled gradients) or "auto" (bf16 where the device computes in it, else fp16 on a GPU and off on a CPU).
    cfg.SOLVER.AMP = one_of("off", ["off", "bf16", "fp16", "auto"])
    # Let a GPU round the factors of float32 products to 10 bits (TensorFloat-32).
    cfg.SOLVER.TF32 = flag(False)
    # Each batch is computed in this many pieces, whose gradients add up: less memory, the same step.
    cfg.SOLVER.ACCUMULATE = whole(1, low=1)
    # Spread weights, gradients and optimizer states over the processes of torchrun (FSDP2), for end2end on backbones
    # that are too large for one GPU; otherwise every process holds all of them (DDP).
    cfg.SOLVER.FSDP = flag(False)
    # Largest norm of the gradient, 0: no limit.
    cfg.SOLVER.CLIP_GRAD = number(0.0, low=0)
    return cfg
