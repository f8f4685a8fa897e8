"""TFDS's download_and_prepare, in an environment with TensorFlow. Started by src.tools.prepare; does not use ViTune.

    python src/tools/tfds_build.py cifar100 data/tfds array_record [MANUAL_DIR]

Exit status: 0 when the data set is prepared, 3 if TensorFlow or TFDS is not installed, 1 for anything else.
"""

import sys


def main(builder_name: str, data_dir: str, file_format: str, manual_dir: str | None = None) -> int:
    try:
        import tensorflow
        import tensorflow_datasets
    except ImportError as error:
        print(f"{sys.executable}: {error}", flush=True)
        return 3
    print(f"TensorFlow {tensorflow.__version__}, tensorflow-datasets {tensorflow_datasets.__version__}", flush=True)
    builder = tensorflow_datasets.builder(builder_name, data_dir=data_dir, file_format=file_format)
    config = tensorflow_datasets.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
