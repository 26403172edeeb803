package bios.bench;

import bios.worker.device.Device;
import bios.worker.model.BaseModel;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/// Measures the time to load a model folder, compared with one plain read of the same files: from the page
/// cache, and from the disk.
///
/// @param repetitions number of runs of each, alternating; the median counts
public record LoadBench(Setup setup, int repetitions) {
    private static final int BUFFER = 4 << 20;

    /// Writes the model if there is none, and measures.
    public Report run() throws IOException {
        if (setup.folder().isPresent()) return measured(setup.folder().get());
        Path folder = Files.createTempDirectory("bios-bench-");
        try {
            setup.shape().write(folder, setup.bf16());
            return measured(folder);
        } finally {
            Setup.delete(folder);
        }
    }

    private Report measured(Path folder) throws IOException {
        List<Path> files;
        try (Stream<Path> all = Files.list(folder)) {
            files = all.toList();
        }
        Report report;
        try (Device device = setup.device()) {
            report = setup.report("load", device);
        }
        long bytes = 0;
        for (Path file : files) bytes += Files.size(file);
        report.line().put("mb", bytes >> 20);
        load(folder);       // loads classes and compiles kernels
        boolean evicts = FileCache.evict(files);
        report.line().put("forgets_files", evicts);
        read(files);        // fills the own cache of a virtual disk, which cannot be evicted
        if (evicts) compare("cold", folder, files, bytes, report);
        read(files);
        compare("warm", folder, files, bytes, report);
        report.line().put("peak_rss_mb", Report.peakMebibytes());
        return report;
    }

    private void compare(String state, Path folder, List<Path> files, long bytes, Report report)
            throws IOException {
        List<Double> reads = new ArrayList<>();
        List<Double> loads = new ArrayList<>();
        for (int i = 0; i < repetitions; i++) {
            if (state.equals("cold")) FileCache.evict(files);
            reads.add(read(files));
            if (state.equals("cold")) FileCache.evict(files);
            loads.add(load(folder));
        }
        double read = Percentiles.of(reads).median();
        double load = Percentiles.of(loads).median();
        report.line().put(state + "_read_s", Report.three(read)).put(state + "_load_s", Report.three(load))
                .put(state + "_ratio", Report.two(load / read))
                .put(state + "_read_gb_s", Report.two(bytes / read / 1e9));
    }

    private double load(Path folder) {
        try (Device device = setup.device()) {
            long begin = System.nanoTime();
            BaseModel model = BaseModel.load(folder, setup.name(), device);
            double seconds = (System.nanoTime() - begin) * 1e-9;
            model.close();
            return seconds;
        }
    }

    /// Seconds of reading all bytes once, into one buffer.
    private static double read(List<Path> files) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER);
        long begin = System.nanoTime();
        for (Path file : files)
            try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
                while (channel.read(buffer.clear()) >= 0) {
                    // the bytes are not used
                }
            }
        return (System.nanoTime() - begin) * 1e-9;
    }
}
