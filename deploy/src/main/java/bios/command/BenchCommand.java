package bios.command;

import bios.CommandFailed;
import bios.bench.EngineBench;
import bios.bench.Shape;
import bios.worker.device.cpu.CpuDevice;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// `bios bench`: how fast this machine trains and samples, beside a peer or a ceiling
/// measured in the same run.
@Command(name = "bench", mixinStandardHelpOptions = true, description = "Measure speed: train, sample, gemm.")
public final class BenchCommand implements Runnable {
    @CommandLine.Spec private CommandLine.Model.CommandSpec spec;

    @Override public void run() {
        throw new CommandLine.ParameterException(spec.commandLine(),
                "Name a benchmark: train, sample or gemm.");
    }

    /// What all benchmarks of the engine have in common.
    public static final class Options {
        @Option(names = "--shape", defaultValue = "llama-110m",
                description = "llama-110m or qwen2.5-0.5b (default: ${DEFAULT-VALUE}).")
        private String shape;

        @Option(names = "--dtype", defaultValue = "bf16",
                description = "bf16 or fp32 base weights (default: ${DEFAULT-VALUE}).")
        private String dtype;

        @Option(names = "--activations", defaultValue = "exact",
                description = "Beside bf16 weights: exact, split, rounded or mixed (default: ${DEFAULT-VALUE}).")
        private CpuDevice.Activations activations;

        @Option(names = "--rank", defaultValue = "32",
                description = "Rank of the adapter (default: ${DEFAULT-VALUE}).")
        private int rank;

        @Option(names = "--threads", description = "Threads of the engine (default: all cores).")
        private Integer threads;

        @Option(names = "--peer", paramLabel = "PYTHON", description =
                "Also run the peer (torch, transformers, peft) with this Python and print the ratio.")
        private String peer;

        @Option(names = "--json", description = "Print a JSON line.")
        private boolean json;

        @Option(names = "--append", paramLabel = "FILE", description = "Append the JSON line to this file.")
        private Path append;

        private EngineBench bench() {
            Shape found = Shape.of(shape);
            if (found == null)
                throw new CommandFailed("--shape " + shape + ": unknown; llama-110m or qwen2.5-0.5b");
            if (!dtype.equals("bf16") && !dtype.equals("fp32"))
                throw new CommandFailed("--dtype " + dtype + ": bf16 or fp32");
            int cores = threads == null ? Runtime.getRuntime().availableProcessors() : threads;
            return new EngineBench(found, dtype.equals("bf16"), activations, rank, cores,
                    Optional.ofNullable(peer));
        }
    }

    @Command(name = "train", mixinStandardHelpOptions = true,
            description = "One LoRA training step: forward_backward and optim_step.")
    void train(@Mixin Options options,
            @Option(names = "--batch", defaultValue = "8",
                    description = "Sequences (default: ${DEFAULT-VALUE}).") int batch,
            @Option(names = "--seq", defaultValue = "256",
                    description = "Tokens of each (default: ${DEFAULT-VALUE}).") int length,
            @Option(names = "--steps", defaultValue = "4",
                    description = "Steps measured (default: ${DEFAULT-VALUE}).") int steps)
            throws IOException {
        options.bench().train(batch, length, steps).finish(options.json, options.append);
    }

    @Command(name = "sample", mixinStandardHelpOptions = true,
            description = "Decoding after a prompt of 32 tokens.")
    void sample(@Mixin Options options,
            @Option(names = "--streams", defaultValue = "1",
                    description = "Sequences at once (default: ${DEFAULT-VALUE}).") int streams,
            @Option(names = "--tokens", defaultValue = "64",
                    description = "Tokens of each (default: ${DEFAULT-VALUE}).") int tokens)
            throws IOException {
        options.bench().sample(streams, tokens).finish(options.json, options.append);
    }

    @Command(name = "gemm", mixinStandardHelpOptions = true,
            description = "Matrix products of the model's shapes: the ceiling.")
    void gemm(@Mixin Options options,
            @Option(names = "--rows", defaultValue = "1024",
                    description = "Tokens (default: ${DEFAULT-VALUE}).") int rows) {
        options.bench().gemm(rows).finish(options.json, options.append);
    }
}
