# ruff: noqa: E501 - each line is one example, and a long one is part of what is tested
"""Generates what machine learning writes every day and holds no secret: command lines, paths, digests, logs, files.

All of it must come through the redaction unchanged. As with the planted secrets, a kind of line belongs to one of two
halves for ever; where a line names secrets ("token", "key"), it does so as machine learning does.
"""

import base64
import random
import re
import uuid
from collections.abc import Callable

from secrets_corpus import half_of
from secrets_formats import ALNUM, BASE36, DIGITS, HEX, draw

Choice = Callable[[random.Random], str]


def _of(*choices: str) -> Choice:
    return lambda r: r.choice(choices)


def _hex(size: int) -> Choice:
    return lambda r: draw(r, HEX, size)


#: What ``{name}`` in a line stands for.
WORDS: dict[str, Choice] = {
    "sha1": _hex(40),
    "sha256": _hex(64),
    "md5": _hex(32),
    "short": _hex(12),
    "uuid": lambda r: str(uuid.UUID(int=r.getrandbits(128), version=4)),
    "run": _hex(32),
    "wb": lambda r: draw(r, BASE36, 8),
    "int": lambda r: str(r.choice([1, 2, 4, 8, 16, 64, 512, 2048, 32000, 50257, r.randrange(10**6)])),
    "float": lambda r: r.choice(["1e-4", "0.1", "3e-05", "0.999", "2.5e-4", f"{r.random():.6f}", f"{r.random()}"]),
    "bool": _of("True", "False", "true", "false", "yes", "no"),
    "model": _of(
        "meta-llama/Llama-2-7b-chat-hf", "mistralai/Mixtral-8x7B-Instruct-v0.1", "google/vit-base-patch16-224-in21k",
        "bert-base-uncased", "facebook/wav2vec2-large-960h-lv60-self", "openai/clip-vit-large-patch14-336",
        "stabilityai/stable-diffusion-xl-base-1.0", "microsoft/deberta-v3-large", "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4",
        "convnextv2_base.fcmae_ft_in22k_in1k_384", "swin_large_patch4_window12_384_22kto1k", "resnet50_a1_in1k",
        "TheBloke/WizardCoder-Python-34B-V1.0-AWQ", "tf_efficientnetv2_s.in21k_ft_in1k", "sentence-transformers/all-MiniLM-L6-v2",
    ),
    "data": _of(
        "wikitext-103-raw-v1", "imagenet-1k", "c4_en_2023-06", "cifar10", "openwebtext2_tokenized_2048_v3", "laion2B-en-aesthetic",
        "squad_v2", "the_pile_deduplicated", "ms_marco_v2.1", "coco2017_val_5k",
    ),
    "path": _of(
        "/data/imagenet/train", "/mnt/nfs/secrets-of-the-sea/audio", "/scratch/u123/tokens/openwebtext2_2048.bin", "./outputs/2026-11-23/10-02-03",
        "/home/me/keys/piano-keys-dataset/v2", "~/.cache/huggingface/hub/models--bert-base-uncased/snapshots", "/opt/conda/envs/torch2.1-cu121/lib/python3.11",
        "/gpfs/project/ABC123/checkpoints/run_2026_11_23", "../tokenizers/bpe-32k-v2.json", "/srv/passport-photos/images", "s3://bucket-7/train/shard-{000000..001281}.tar",
        "gs://my-bucket/tokenized/c4-00000-of-01024.tfrecord", "/var/lib/docker/overlay2", "/data/authors/key_frames/clip_0001.mp4",
    ),
    "version": _of("2.1.0+cu121", "1.26.4", "0.15.2", "4.36.0.dev0", "2024.1.post3", "3.0.0rc1"),
    "host": _of("node017", "gpu-04.cluster.example", "10.1.2.3", "login2", "raspberrypi"),
    "day": _of("2026-11-23T10:02:03.123456Z", "20261123_100203", "2026-11-23 10:02:03,123", "1763892123.482913"),
    "camel": _of("AutoModelForSequenceClassification", "DistributedDataParallelKwargs", "BertTokenizerFast", "MultiheadAttentionV2"),
    "special": _of('"<pad>"', "'<|endoftext|>'", "</s>", "[MASK]", '"[PAD]"', "<unk>", "'<extra_id_0>'", "'<|im_start|>'", "<image>", "'▁'"),
    "base36": lambda r: draw(r, BASE36, 6),
    "digits": lambda r: draw(r, DIGITS, 10),
    "name": lambda r: "exp-" + draw(r, ALNUM, 4),
    "blob": lambda r: base64.b64encode(r.randbytes(48)).decode(),
}  # fmt: skip

LINES = r"""
python train.py --model_name_or_path {model} --dataset_name {data} --learning_rate {float} --max_seq_length {int} --do_train --fp16
torchrun --nproc_per_node=8 --nnodes={int} --rdzv_id={int} --rdzv_backend=c10d --rdzv_endpoint={host}:29500 main.py --data-path {path}
python -m fairseq.train {path} --arch transformer_lm --tokens-per-sample {int} --max-tokens {int} --sample-break-mode none
accelerate launch --config_file {path}/zero3.yaml train.py --use_cls_token {bool} --num-memory-tokens={int} --max_tokens {int} --key-dim={int}
python run.py --tokenizer {model} --tokenizer_name={model} --pad_token {special} --eos_token {special} --bos_token {special} --sort-key loss
python generate.py --max_new_tokens {int} --stop_token {special} --temperature {float} --skip_special_tokens {bool} --forced_bos_token_id {int}
python main.py model.key_dim={int} model.value_dim={int} data.tokens_per_batch={int} optimizer.lr={float} hydra.job.name={name}
python main.py +trainer.key_averages=true data.key=image data.label_key=label train.sort_key=length seed={int}
deepspeed --num_gpus {int} train.py --deepspeed ds_config.json --num_key_value_heads {int} --attn_key_norm {bool} --token_dropout {float}
python preprocess.py --input {path} --json-keys text --tokenizer-type GPT2BPETokenizer --vocab-file vocab.json --append-eod --workers {int}
python eval.py --image_key jpg --text-key caption_0 --primary_key id --group-key patient_id_v2 --cache-key {data} --key-frames {int}
python vit.py --model {model} --global_pool token --class_token {bool} --no-embed-class --pass 2 --patch-size 16
python sd.py --placeholder_token "<cat-toy>" --initializer_token toy --instance_token sks --token_length {int} --prompt "a photo of sks dog"
rsync -a me@{host}:{path} {path} --exclude .git
scp user@host:/data user@{host}:{path}
git clone git@github.com:org/repo.git && git checkout {sha1}
git+https://github.com/huggingface/transformers@{sha1}#egg=transformers
git+ssh://git@github.com/org/private-repo.git@{sha1}
pip install torch=={version} --hash=sha256:{sha256} --find-links ./wheels/cu121
{sha256}  data/train-00001-of-00064.parquet
dt1:{sha256}
commit {sha1} (HEAD -> main, origin/main)
docker run --gpus all nvcr.io/nvidia/pytorch:24.01-py3@sha256:{sha256} python train.py
docker run -u 1000:1000 -v {path}:/data --rm pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime nvidia-smi
pytorch:24.01@sha256:{sha256}
image: registry.example:5000/ml/train:{short}
mlflow run . -P alpha={float} --run-id {run} --experiment-name {name}
run_id={run} artifact_uri=mlflow-artifacts:/1/{run}/artifacts
http://127.0.0.1:5000/#/experiments/1/runs/{run}
wandb: Syncing run {name} https://wandb.ai/team/project/runs/{wb}
wandb sync wandb/offline-run-20261123_100203-{wb}
{day} INFO epoch {int} loss {float} tokens/s={int} lr={float} grad_norm={float}
{day} step={int} tokens_seen={int} key_loss={float} auth=none pass={int} token_accuracy: {float}
CUDA_VISIBLE_DEVICES=GPU-{uuid} OMP_NUM_THREADS={int} TOKENIZERS_PARALLELISM=false python t.py
NCCL_DEBUG=INFO MASTER_ADDR={host} MASTER_PORT=29500 WORLD_SIZE={int} RANK={int} python -u train.py
PWD=/home/me/project OLDPWD=/home/me SSH_AUTH_SOCK=/tmp/ssh-abc/agent.1 XDG_SESSION_ID=3
{{"pad_token": {special}, "model_max_length": {int}, "tokenizer_class": "{camel}", "use_fast": true}}
{{"bos_token_id": {int}, "eos_token_id": {int}, "hidden_act": "gelu", "num_key_value_heads": {int}, "torch_dtype": "bfloat16"}}
{{"keys": ["input_ids", "attention_mask", "token_type_ids"], "key": "input_ids", "cache_key": "{md5}"}}
tokenizer:\n  type: bpe\n  vocab_size: {int}\n  special_tokens: [pad, unk, bos]\n  pad_token: {special}
token_embedding.weight torch.Size([{int}, 768]) key_proj.bias query_key_value.weight
size mismatch for cls_token: copying a param with shape torch.Size([1, 1, {int}]) from checkpoint
KeyError: 'state_dict'\n  File "{path}/train.py", line {int}, in load\n    key = f"layer.{{i}}.{{name}}"
    tokens = self.tokenizer.encode(text)\n    next_token = tokens[-1]\n    key = lambda x: x.score
def forward(self, query, key, value, key_padding_mask=None, need_weights=True):
q, k = self.key(x).view(b, -1, h), cache[key]; token = next(tokens)
Token indices sequence length is longer than the specified maximum ({int} > 512)
Setting `pad_token_id` to `eos_token_id`:{int} for open-end generation.
the tokens are: key, value, query; the secret is to normalise; pass the mask; authorized use only
{path}/checkpoint-{int}/pytorch_model-00001-of-00002.safetensors
models--{base36}/blobs/{sha256}
{path}/sha256/{sha256}
file://{path}/x.whl#sha256={sha256}
https://repo.anaconda.com/pkgs/main/linux-64/numpy-1.26.4-py311h24aa872_0.conda#{md5}
https://files.pythonhosted.org/packages/3f/{short}/torch-2.1.0-cp311-cp311-manylinux1_x86_64.whl#sha256={sha256}
https://huggingface.co/{model}/resolve/main/model.safetensors?download=true
https://host.example:8080/path@2?page=3&sort_key=loss&token_count={int}&keyword=cat
https://www.kaggle.com/competitions/titanic/data?select=train.csv
https://user-images.githubusercontent.com/123/{uuid}.png
https://registry.npmjs.org/@scope/pkg/-/pkg-1.0.0.tgz
[submodule "x"]\n\tpath = third_party/x\n\turl = https://github.com/org/x.git
Processing sk-learn pipelines with scikit-learn=={version} and hf_transformers_utils_for_long_sequences
sk-image-segmentation-with-random-forests-and-gradient-boosting sk-learn-contrib-py-earth-experiments
hf_hub_download_from_pretrained_with_revision npm_config_registry_for_workspaces pypi-mirror-synchronisation-daemon-2
ray start --address={host}:6379 --object-store-memory {digits} --resources '{{"special_hardware": 1}}'
srun --job-name={name} --gres=gpu:8 --account=proj123 --partition=gpu_a100_short --time=24:00:00 python train.py
kubectl logs trainer-{short}-x7k2p -n ml --since=1h
python -c "import torch; print(torch.__version__, torch.cuda.get_device_name(0))"
python tune.py --search-space '{{"lr": [1e-5, 1e-3], "num_key_heads": [4, 8], "token_mixing": ["mlp", "fft"]}}'
--config-name=config_{base36} --sweep_id {wb} --ckpt {path}/epoch={int}-step={int}-val_loss={float}.ckpt
author = "A. Nonymous" authors: 3 authority=none pattern=*.csv patch=16 passes=2 compass=north monkey=1 keyboard=us
password_file=/run/config/pw use_password: false --no-password-prompt --password-length 12 --secret-name my-secret
requires credentials: none; token: none; auth_token=None; api_key: null; secret=<your-secret>; password=${{PASSWORD}}
hf_token = os.environ["HF_TOKEN"]; api_key=os.getenv("OPENAI_API_KEY"); token=args.hub_token
    def login(self, token: Optional[str] = None, password: str = "", api_key: str | None = None) -> None:
+++ b/src/tokenization_bert.py\n@@ -10,7 +10,7 @@ class {camel}:\n-    sep_token = "[SEP]"\n+    sep_token = {special}
Serial: {uuid} boot_id={uuid} GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-{uuid})
/sys/fs/cgroup/kubepods.slice/kubepods-pod{short}.slice/cri-containerd-{sha256}.scope
conda create -n t python=3.11 pytorch=2.1.0=py3.11_cuda12.1_cudnn8.9.2_0 -c pytorch
train-{day}-{model}-bs{int}-lr{float}-seed{int}
python train.py --experiment.key=value --set a.b.c=1 --override {path}=x --keypoints 17 --keystone no --signal 3 --sigma {float}
mail me@lab.example for access; twitter @someone; decorators @property @staticmethod; cc: a@b.example, c@d.example
time: 10:02@node017: ok; ratio 3:4@5; npm install react@18.2.0 left:right@2.0
ssh -i ~/.ssh/id_ed25519 -p 2222 me@{host} -L 8888:localhost:8888
ssh-ed25519-cert path {path}/id_rsa.pub --private-key ~/.ssh/id_rsa --ssl-key /etc/ssl/private/server.key
digest: sha512-{blob}{blob}
integrity sha384-{blob}ab
data:image/png;base64,{blob}{blob}
jupyter lab --no-browser --port 8888 --NotebookApp.token='' --ip=0.0.0.0
tensorboard --logdir {path} --bind_all --reload_multifile {bool} --samples_per_plugin images={int}
nvidia-smi --query-gpu=name,uuid,driver_version --format=csv,noheader
export HF_HOME={path} HF_HUB_OFFLINE=1 TRANSFORMERS_CACHE={path} PYTHONHASHSEED={int}
basic tokenization then bearer of news; digest authentication is off; negotiate later
cookie-cutter template: https://github.com/drivendataorg/cookiecutter-data-science
optuna study --study-name {name} --storage sqlite:///{name}.db --n-trials {int}
sqlite:////data/mlflow/mlflow.db mysql://localhost:3306/prod redis://127.0.0.1:6379/0
mongodb://db.example:27017,db2.example:27017/?replicaSet=rs0
pytest tests/test_tokenizer.py::test_pad_token -k "not slow and key" -x --durations={int}
make -j{int} CUDA_ARCH_LIST="8.0;8.6;9.0+PTX" KEY=value TOKEN_LIMIT={int}
"""


def harmless(seed: int, half: int, *, rounds: int = 12) -> list[str]:
    """Return ``rounds`` drawings of every kind of line of one half."""
    r = random.Random(seed)
    kinds = [line for line in LINES.strip().splitlines() if half_of(line) == half]
    return [_drawn(line, r) for _ in range(rounds) for line in kinds]


def _drawn(line: str, r: random.Random) -> str:
    def word(match: re.Match[str]) -> str:
        name = match.group(1)
        return WORDS[name](r) if name in WORDS else match.group()

    text = re.sub(r"\{(\w+)\}", word, line)
    return text.replace("{{", "{").replace("}}", "}").replace(r"\n", "\n").replace(r"\t", "\t")
