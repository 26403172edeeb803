package bios.worker.device.cuda;

import static bios.protocol.Require.require;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_INT_UNALIGNED;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import jcuda.driver.CUmodule;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The kernels of a device: compiled for its card, loaded, and launched on its stream. Only the device's
/// thread launches; parameters are packed into one buffer that every launch uses again, so that a launch
/// creates no objects.
final class Kernels implements AutoCloseable {
    /// Most bytes of the parameters of a kernel.
    private static final int PARAMETER_BYTES = 4 << 10;
    /// What cuLaunchKernel calls CU_LAUNCH_PARAM_BUFFER_POINTER and CU_LAUNCH_PARAM_BUFFER_SIZE.
    private static final long BUFFER_POINTER = 1, BUFFER_SIZE = 2;

    private static final Logger log = LoggerFactory.getLogger(Kernels.class);

    private final CudaDriver driver;
    private final ComputeStream stream;
    private final List<CUmodule> modules = new ArrayList<>();
    private final Map<String, Kernel> kernels = new HashMap<>();
    private final Arena arena = Arena.ofShared();
    private final MemorySegment parameters = arena.allocate(PARAMETER_BYTES, 16);
    private final MemorySegment size = arena.allocate(JAVA_LONG);
    private final NativeAddress extra;
    private final boolean early;
    private long launches;

    /// Compiles and loads everything.
    ///
    /// @param early whether a kernel may be launched before the one before it has ended: see
    ///     [CudaDriver#launchEarly]
    Kernels(CudaDriver driver, ComputeStream stream, KernelCompiler compiler, boolean early) {
        this.driver = driver;
        this.early = early && DriverLibrary.hasLaunchKernelEx();
        this.stream = stream;
        MemorySegment list = arena.allocate(JAVA_LONG, 5);
        long[] values = {BUFFER_POINTER, parameters.address(), BUFFER_SIZE, size.address(), 0};
        for (int i = 0; i < values.length; i++) list.setAtIndex(JAVA_LONG, i, values[i]);
        extra = new NativeAddress(list.address());
        var sources = compiler.sources();
        var images = sources.parallelStream().map(compiler::image).toList();
        for (int i = 0; i < images.size(); i++) modules.add(load(sources.get(i), images.get(i), compiler));
    }

    /// A cached image may be damaged: then it is compiled again.
    private CUmodule load(String source, KernelCompiler.Image image, KernelCompiler compiler) {
        try {
            return driver.module(image.code());
        } catch (IllegalStateException damaged) {
            if (!image.cached()) throw damaged;
            log.warn("the cached image of {}.cu is damaged: {}", source, damaged.getMessage());
            return driver.module(compiler.compile(source).code());
        }
    }

    /// A kernel by its name; the parameters of its launch follow.
    Kernel of(String name) {
        Kernel kernel = kernels.get(name);
        if (kernel == null) {
            kernel = new Kernel(name, modules.stream().map(module -> driver.function(module, name))
                    .flatMap(Optional::stream).findFirst().orElseThrow(
                            () -> new IllegalStateException("no kernel " + name)));
            kernels.put(name, kernel);
        }
        kernel.at = 0;
        return kernel;
    }

    /// Whether a kernel may be launched before the one before it has ended.
    boolean early() {
        return early;
    }

    /// Launches so far.
    long launches() {
        return launches;
    }

    @Override public void close() {
        modules.forEach(driver::unload);
        arena.close();
    }

    /// A kernel and its launch: parameters in their order, then [#launch].
    final class Kernel {
        private final String name;
        private final CudaFunction function;
        /// Dynamic shared memory that the driver has been asked for. Without being asked it gives 48 KiB,
        /// less what the kernel declares itself.
        private int shared;
        private long at;

        private Kernel(String name, CudaFunction function) {
            this.name = name;
            this.function = function;
        }

        private long next(int alignment, int bytes) {
            long own = (at + alignment - 1) / alignment * alignment;
            at = own + bytes;
            require(at <= PARAMETER_BYTES, "the parameters of %s", name);
            return own;
        }

        Kernel with(CudaTensor matrix) {
            Matrix.write(parameters, next(Matrix.ALIGNMENT, Matrix.BYTES), matrix);
            return this;
        }

        /// A matrix that may be absent.
        Kernel withOptional(Optional<CudaTensor> matrix) {
            if (matrix.isPresent()) return with(matrix.get());
            Matrix.writeNone(parameters, next(Matrix.ALIGNMENT, Matrix.BYTES));
            return this;
        }

        Kernel with(int value) {
            parameters.set(JAVA_INT_UNALIGNED, next(4, 4), value);
            return this;
        }

        /// A 64-bit integer or an address.
        Kernel with(long value) {
            parameters.set(JAVA_LONG_UNALIGNED, next(8, 8), value);
            return this;
        }

        Kernel with(float value) {
            parameters.set(JAVA_FLOAT_UNALIGNED, next(4, 4), value);
            return this;
        }

        Kernel with(double value) {
            parameters.set(JAVA_DOUBLE_UNALIGNED, next(8, 8), value);
            return this;
        }

        /// Launches on the device's stream; nothing if the grid is empty.
        void launch(int gridX, int gridY, int gridZ, int block, int sharedBytes) {
            if (gridX == 0 || gridY == 0 || gridZ == 0) return;
            if (sharedBytes > shared) {
                driver.allowShared(function, sharedBytes);
                shared = sharedBytes;
            }
            size.set(JAVA_LONG, 0, at);
            launches++;
            if (early) driver.launchEarly(name, function, gridX, gridY, gridZ, block, sharedBytes,
                    stream.current(), extra);
            else driver.launch(name, function, gridX, gridY, gridZ, block, sharedBytes, stream.current(),
                    extra);
        }

        /// The same with one dimension and no dynamic shared memory.
        void launch(int grid, int block) {
            launch(grid, 1, 1, block, 0);
        }
    }
}
