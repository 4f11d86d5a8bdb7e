#!/usr/bin/env python3
"""What PyTorch does on this GPU at mojit's sizes: kernels beside `mojit bench`, and the seed-size model beside `mojit compare`.

    torch_baseline.py [--part kernels|model|all] [--json FILE] [--batch 32] [--steps 12] [--seconds 0.1]

Times are medians by CUDA events; kernels are timed with the L2 cache flushed before each launch, on random data. Each
measurement stands alone: one that fails is reported with its error, and the others go on. The JSON is rewritten after each.
The model is the one of docs and sweeps/compile_sweep_v1_1gpu.ini, with these differences, which are named in the JSON:
every attention layer is plain causal (SDPA has no window), and weight gradients of fp8 experts are taken in bf16.
"""
import argparse
import json
import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

E4M3 = torch.float8_e4m3fn
results = {"kernels": [], "model": []}


def save(args):
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f, indent=1)


def about():
    p = torch.cuda.get_device_properties(0)
    return {"device": p.name, "multiprocessors": p.multi_processor_count, "memory_bytes": p.total_memory,
            "l2_bytes": getattr(p, "L2_cache_size", None), "torch": torch.__version__, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()}


# ---- kernels ------------------------------------------------------------------------------------------------------------

class Timer:
    """As mojit times: a buffer of twice the L2 cache is written and read before each launch."""

    def __init__(self, seconds):
        size = 2 * (getattr(torch.cuda.get_device_properties(0), "L2_cache_size", None) or 64 << 20)
        self.flush = torch.empty(size // 4, dtype=torch.float32, device="cuda")
        self.seconds = seconds

    def __call__(self, fn, prepare=None):
        for _ in range(3):
            if prepare:
                prepare()
            fn()
        torch.cuda.synchronize()
        times = []
        while len(times) < 2000 and (len(times) < 20 or sum(times) < self.seconds):
            pairs = []
            for _ in range(10):
                if prepare:
                    prepare()
                self.flush.zero_()
                self.flush.sum()
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                fn()
                end.record()
                pairs.append((begin, end))
            torch.cuda.synchronize()
            times += [b.elapsed_time(e) * 1e-3 for b, e in pairs]
        times.sort()
        return statistics.median(times), times[len(times) // 10], times[len(times) * 9 // 10], len(times)


def measure(args, timer, name, shape, make, flops=0.0, moved=0.0):
    """make() builds the inputs and returns what to time; whatever it raises is the result."""
    row = {"name": name, "shape": shape}
    try:
        median, low, high, runs = timer(make())
        row.update(median_us=median * 1e6, spread_us=[low * 1e6, high * 1e6], runs=runs)
        if flops:
            row["tflops"] = flops / median * 1e-12
        if moved:
            row["tbytes"] = moved / median * 1e-12
        print(f"{name:34s} {shape:44s} {median * 1e6:10.1f} us" + (f" {row['tflops']:8.1f} TFLOP/s" if flops else "") +
              (f" {row['tbytes']:6.2f} TB/s" if moved else ""), flush=True)
    except Exception as e:  # the others are still worth measuring
        row["error"] = f"{type(e).__name__}: {str(e)[:400]}"
        print(f"{name:34s} {shape:44s} {row['error'][:120]}", flush=True)
    results["kernels"].append(row)
    torch.cuda.empty_cache()
    save(args)


def rand(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def ends(groups, rows):
    return torch.arange(1, groups + 1, device="cuda", dtype=torch.int32) * rows


def fp8_rows(x):
    """Along the last dimension, a scale a row."""
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / 448.0
    return (x.float() / scale).to(E4M3), scale.squeeze(-1)


def grouped_bf16(groups, rows, n, k):
    a, b, offs = rand(groups * rows, k), rand(groups, n, k).transpose(-2, -1), ends(groups, rows)
    return lambda: torch._grouped_mm(a, b, offs=offs)


def grouped_bf16_wgrad(groups, rows, m, n):
    dy, x, offs = rand(groups * rows, m), rand(groups * rows, n), ends(groups, rows)
    return lambda: torch._grouped_mm(dy.t(), x, offs=offs)


def random_fp8(*shape):
    return (torch.rand(*shape, device="cuda") * 4 - 2).to(E4M3)


def grouped_fp8(groups, rows, n, k):
    a, b, offs = random_fp8(groups * rows, k), random_fp8(groups, n, k).transpose(-2, -1), ends(groups, rows)
    sa = torch.rand(groups * rows, device="cuda") + 0.5
    sb = torch.rand(groups, n, device="cuda") + 0.5
    return lambda: torch._scaled_grouped_mm(a, b, sa, sb, offs=offs, out_dtype=torch.bfloat16, use_fast_accum=True)


def grouped_fp8_wgrad(groups, rows, m, n):
    total = groups * rows
    a, b, offs = random_fp8(m, total), random_fp8(n, total).t(), ends(groups, rows)
    sa = torch.rand(groups * m, device="cuda") + 0.5
    sb = torch.rand(groups * n, device="cuda") + 0.5
    return lambda: torch._scaled_grouped_mm(a, b, sa, sb, offs=offs, out_dtype=torch.bfloat16, use_fast_accum=True)


def dense_fp8(n, fast):
    a, b = random_fp8(n, n), random_fp8(n, n).t()
    one = torch.ones((), device="cuda")
    return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=fast)


def dense_bf16(n):
    a, b = rand(n, n), rand(n, n)
    return lambda: a @ b


def attention(heads, tokens, backward):
    q, k, v = (rand(1, heads, tokens, 128).requires_grad_(backward) for _ in range(3))
    if not backward:
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    dout = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)


def copy(size):
    a, b = (torch.empty(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    a.random_(0, 255)
    return lambda: b.copy_(a)


def kernels(args):
    t = Timer(args.seconds)
    measure(args, t, "copy", "2 GiB", lambda: copy(2 << 30), moved=2.0 * (2 << 30))
    cube = 2.0 * 8192**3
    measure(args, t, "mm bf16", "8192 x 8192 x 8192", lambda: dense_bf16(8192), cube)
    for fast in (False, True):
        measure(args, t, f"_scaled_mm fp8{' fast' if fast else ''}", "8192 x 8192 x 8192", lambda: dense_fp8(8192, fast), cube)
    forward = [(4, 8192, 6144, 7168), (4, 8192, 7168, 3072), (4, 8192, 4096, 4096), (4, 8192, 4096, 2048), (8, 4096, 6144, 7168),
               (8, 4096, 4096, 2048), (64, 8192, 384, 768), (64, 8192, 768, 384)]
    for g, rows, n, k in forward:
        shape, flops = f"{g} x {rows} rows, n {n}, k {k}", 2.0 * g * rows * n * k
        measure(args, t, "_scaled_grouped_mm fp8 rowwise", shape, lambda: grouped_fp8(g, rows, n, k), flops)
        if k <= 4096:
            measure(args, t, "_grouped_mm bf16", shape, lambda: grouped_bf16(g, rows, n, k), flops)
    wgrad = [(4, 8192, 4096, 7168), (4, 8192, 7168, 2048), (8, 4096, 4096, 7168), (16, 2048, 7168, 2048), (64, 8192, 384, 768)]
    for g, rows, m, n in wgrad:
        shape, flops = f"wgrad {g} x {rows} rows, m {m}, n {n}", 2.0 * g * rows * n * m
        measure(args, t, "_scaled_grouped_mm fp8 rowwise", shape, lambda: grouped_fp8_wgrad(g, rows, m, n), flops)
        measure(args, t, "_grouped_mm bf16", shape, lambda: grouped_bf16_wgrad(g, rows, m, n), flops)
    for heads, tokens in ((128, 2048), (32, 8192)):
        pairs = tokens * (tokens + 1) / 2 * heads * 128
        measure(args, t, "SDPA causal forward", f"heads {heads}, T {tokens}, D 128", lambda: attention(heads, tokens, False), 4 * pairs)
        measure(args, t, "SDPA causal backward", f"heads {heads}, T {tokens}, D 128", lambda: attention(heads, tokens, True), 10 * pairs)


# ---- the model ----------------------------------------------------------------------------------------------------------

DEPTH, WIDTH, HEADS, DIM, VOCAB, T = 12, 768, 6, 128, 65536, 2048
EXPERTS, TOP_K, HIDDEN = 64, 8, 384
FLOPS_PER_TOKEN = 957e6  # as in the sweep: MFU comparable with mojit's
ALIGN = 16


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Fp8Grouped(torch.autograd.Function):
    """y = x w^T for each group of rows: e4m3 with a scale a row, forward and dgrad; wgrad in bf16."""

    @staticmethod
    def forward(ctx, x, w, offs):
        ctx.save_for_backward(x, w, offs)
        qx, sx = fp8_rows(x)
        qw, sw = fp8_rows(w)
        return torch._scaled_grouped_mm(qx, qw.transpose(-2, -1), sx, sw, offs=offs, out_dtype=torch.bfloat16, use_fast_accum=True)

    @staticmethod
    def backward(ctx, dy):
        x, w, offs = ctx.saved_tensors
        dy = dy.contiguous()
        qd, sd = fp8_rows(dy)
        qw, sw = fp8_rows(w.transpose(-2, -1).contiguous())
        dx = torch._scaled_grouped_mm(qd, qw.transpose(-2, -1), sd, sw, offs=offs, out_dtype=torch.bfloat16, use_fast_accum=True)
        return dx, torch._grouped_mm(dy.t(), x, offs=offs), None


def experts_matmul(x, w, offs, fp8):
    return Fp8Grouped.apply(x, w, offs) if fp8 else torch._grouped_mm(x, w.transpose(-2, -1), offs=offs)


class Moe(torch.nn.Module):
    def __init__(self, fp8):
        super().__init__()
        self.fp8 = fp8
        self.router = torch.nn.Parameter(torch.randn(EXPERTS, WIDTH) * WIDTH**-0.5)
        self.up = torch.nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH) * WIDTH**-0.5)
        self.down = torch.nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN) * HIDDEN**-0.5)

    def forward(self, x):  # (N, W); group sizes stay on the device
        n = x.size(0)
        score = torch.sigmoid(x.float() @ self.router.t())
        gate, expert = score.topk(TOP_K, dim=-1)
        flat = expert.reshape(-1)
        order = torch.argsort(flat, stable=True)
        counts = torch.zeros(EXPERTS, dtype=torch.int64, device=x.device).scatter_add_(0, flat, torch.ones_like(flat))
        padded = (counts + ALIGN - 1) // ALIGN * ALIGN
        last = padded.cumsum(0)
        sorted_expert = flat[order]
        rank = torch.arange(flat.numel(), device=x.device) - (counts.cumsum(0) - counts)[sorted_expert]
        row = (last - padded)[sorted_expert] + rank
        rows = x.new_zeros(n * TOP_K + EXPERTS * ALIGN, WIDTH).index_copy(0, row, x[order // TOP_K])
        offs = last.to(torch.int32)
        h = experts_matmul(rows, self.up.to(torch.bfloat16), offs, self.fp8)
        y = experts_matmul(torch.relu(h).square(), self.down.to(torch.bfloat16), offs, self.fp8)
        back = torch.empty(n * TOP_K, dtype=torch.int64, device=x.device).scatter_(0, order, row)
        return (y[back].view(n, TOP_K, WIDTH) * gate.to(x.dtype).unsqueeze(-1)).sum(dim=1)


class Layer(torch.nn.Module):
    def __init__(self, fp8):
        super().__init__()
        self.qkv = torch.nn.Parameter(torch.randn(3 * WIDTH, WIDTH) * WIDTH**-0.5)
        self.wo = torch.nn.Parameter(torch.zeros(WIDTH, WIDTH))
        self.moe = Moe(fp8)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = F.linear(norm(x).to(torch.bfloat16), self.qkv.to(torch.bfloat16)).view(b, t, 3, HEADS, DIM).unbind(2)
        q, k = (norm(rope(z, cos, sin)) * 1.2 for z in (q, k))
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        x = x + F.linear(out.transpose(1, 2).reshape(b, t, WIDTH), self.wo.to(torch.bfloat16)).float()
        return x + self.moe(norm(x).to(torch.bfloat16).view(b * t, WIDTH)).view(b, t, WIDTH).float()


def rope(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Model(torch.nn.Module):
    def __init__(self, fp8):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCAB, WIDTH)
        self.layers = torch.nn.ModuleList(Layer(fp8) for _ in range(DEPTH))
        self.head = torch.nn.Parameter(torch.randn(VOCAB, WIDTH) * 0.001)
        angle = torch.arange(T)[:, None] * 1e5 ** (-torch.arange(0, DIM, 2) / DIM)[None, :]
        self.register_buffer("cos", angle.cos()[None, :, None, :].to(torch.bfloat16), persistent=False)
        self.register_buffer("sin", angle.sin()[None, :, None, :].to(torch.bfloat16), persistent=False)

    def forward(self, tokens, targets):
        t = tokens.size(1)
        x = norm(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x, self.cos[:, :t], self.sin[:, :t])
        x = norm(x).to(torch.bfloat16).view(-1, WIDTH)
        total = x.new_zeros((), dtype=torch.float32)
        for part, target in zip(x.split(8192), targets.reshape(-1).split(8192)):  # never all logits at once
            total = total + torch.utils.checkpoint.checkpoint(self.loss, part, target, use_reentrant=False)
        return total / targets.numel()

    def loss(self, x, target):
        logits = F.linear(x, self.head.to(torch.bfloat16)).float()
        return F.cross_entropy(15.0 * torch.tanh(logits / 15.0), target, reduction="sum")


def train(args, row, fp8, compiled, batch, lengths):
    torch.manual_seed(1)
    model = Model(fp8).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    step = torch.compile(model, dynamic=compiled == "dynamic") if compiled else model
    times, losses = [], []
    for i in range(args.steps):
        tokens = torch.randint(0, VOCAB, (batch, lengths[i % len(lengths)] + 1), device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        loss = step(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
        row.update(steps=i + 1, first_step_s=times[0], losses=losses, dt_ms=[1e3 * t for t in times])
    late = sorted(times[max(3, len(times) // 3):] or times)
    n = batch * statistics.mean(lengths)
    row.update(median_dt_ms=1e3 * statistics.median(late), tok_per_sec=n / statistics.median(late),
               bf16_mfu_of_989=FLOPS_PER_TOKEN * n / statistics.median(late) / 989.4e12, peak_bytes=torch.cuda.max_memory_allocated())


def model(args):
    import torch.utils.checkpoint  # noqa: F401
    for fp8 in (False, True):
        for compiled in (None, "static", "dynamic"):
            batch = args.batch
            while batch >= 4:
                row = {"experts": "fp8" if fp8 else "bf16", "compile": compiled or "eager", "batch": batch, "tokens": batch * T,
                       "attention": "causal without windows", "fp8_wgrad": "bf16"}
                torch.cuda.reset_peak_memory_stats()
                torch._dynamo.reset()
                again = False
                try:
                    train(args, row, fp8, compiled, batch, [T])
                    print(f"{row['experts']} experts, {row['compile']:8s} batch {batch}: {row['tok_per_sec']:12.0f} tok/s, "
                          f"{row['median_dt_ms']:9.1f} ms a step, first step {row['first_step_s']:.1f} s, loss {row['losses'][-1]:.4f}", flush=True)
                except torch.cuda.OutOfMemoryError as e:
                    row["error"], again = f"out of memory: {str(e)[:200]}", True
                except Exception as e:
                    row["error"] = f"{type(e).__name__}: {str(e)[:600]}"
                    traceback.print_exc(limit=3)
                if "error" in row:
                    print(f"{row['experts']} experts, {row['compile']} batch {batch}: {row['error'][:150]}", flush=True)
                results["model"].append(row)
                save(args)
                torch.cuda.empty_cache()
                if not again:
                    break
                batch //= 2


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--part", choices=("kernels", "model", "all"), default="all")
    p.add_argument("--json")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--steps", type=int, default=12)
    p.add_argument("--seconds", type=float, default=0.1)
    args = p.parse_args()
    if not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        return 77
    results["about"] = about()
    print(json.dumps(results["about"]), flush=True)
    if args.part in ("kernels", "all"):
        kernels(args)
    if args.part in ("model", "all"):
        model(args)
    save(args)
    errors = sum("error" in r for r in results["kernels"] + results["model"])
    print(f"{len(results['kernels']) + len(results['model'])} measurements, {errors} of them failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
