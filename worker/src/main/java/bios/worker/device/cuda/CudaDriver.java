package bios.worker.device.cuda;

import bios.worker.device.DeviceLost;
import bios.worker.device.HostMemory;
import bios.worker.device.OutOfDeviceMemory;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import jcuda.driver.CUDA_MEMCPY2D;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUevent;
import jcuda.driver.CUfunction_attribute;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUmemorytype;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.CUuuid;
import jcuda.driver.JCudaDriver;

/// The driver API on one card, every call checked: the only class that calls JCuda. Any thread may call; the
/// card's primary context is made current for each call, because a virtual thread changes its carrier.
///
/// Errors: memory that is not there is the result 0 of [#allocate], else [OutOfDeviceMemory]; an error after
/// which the context is of no use is [DeviceLost], now and at every later call; all others are an
/// [IllegalStateException] that names the call.
final class CudaDriver implements AutoCloseable {
    private static final int DISABLE_TIMING = 2;
    private static final int NON_BLOCKING = 1;

    /// Whose context is current on a platform thread.
    private static final ThreadLocal<CudaDriver> CURRENT = new ThreadLocal<>();

    private final EarlyLaunch earlyLaunch = new EarlyLaunch();
    private final CUdevice device;
    private final CUcontext context = new CUcontext();
    private volatile String lost;
    private volatile boolean closed;

    /// The driver of a card, with its primary context.
    CudaDriver(CudaCard card) {
        device = new CUdevice();
        verify(JCudaDriver.cuDeviceGet(device, card.index()), "cuDeviceGet");
        verify(JCudaDriver.cuDevicePrimaryCtxRetain(context, device), "cuDevicePrimaryCtxRetain");
    }

    // ---- the machine ----

    /// The cards that the driver lists.
    ///
    /// @throws IllegalStateException with the reason, if there is no driver or it does not start
    static List<CudaCard> cards() {
        DriverLibrary.problem().ifPresent(problem -> {
            throw new IllegalStateException(problem);
        });
        JCudaDriver.setExceptionsEnabled(false);
        int started = JCudaDriver.cuInit(0);
        if (started == CUresult.CUDA_ERROR_NO_DEVICE) return List.of();
        if (started != CUresult.CUDA_SUCCESS)
            throw new IllegalStateException("the NVIDIA driver does not start: " + name(started));
        int[] count = new int[1];
        verify(JCudaDriver.cuDeviceGetCount(count), "cuDeviceGetCount");
        var cards = new ArrayList<CudaCard>();
        for (int i = 0; i < count[0]; i++) cards.add(card(i));
        return List.copyOf(cards);
    }

    /// Version of CUDA that the driver supports, as 1000·major + 10·minor.
    static int version() {
        int[] version = new int[1];
        verify(JCudaDriver.cuDriverGetVersion(version), "cuDriverGetVersion");
        return version[0];
    }

    private static CudaCard card(int index) {
        var device = new CUdevice();
        verify(JCudaDriver.cuDeviceGet(device, index), "cuDeviceGet");
        byte[] name = new byte[256];
        verify(JCudaDriver.cuDeviceGetName(name, name.length, device), "cuDeviceGetName");
        int length = 0;
        while (length < name.length && name[length] != 0) length++;
        var uuid = new CUuuid();
        uuid.bytes = new byte[16];
        verify(JCudaDriver.cuDeviceGetUuid(uuid, device), "cuDeviceGetUuid");
        long[] bytes = new long[1];
        verify(JCudaDriver.cuDeviceTotalMem(bytes, device), "cuDeviceTotalMem");
        return new CudaCard(index, new String(name, 0, length, StandardCharsets.UTF_8), uuid(uuid.bytes),
                attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
                bytes[0], attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
                attribute(device,
                        CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
                attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
    }

    private static int attribute(CUdevice device, int attribute) {
        int[] value = new int[1];
        verify(JCudaDriver.cuDeviceGetAttribute(value, attribute, device), "cuDeviceGetAttribute");
        return value[0];
    }

    private static String uuid(byte[] bytes) {
        String hex = HexFormat.of().formatHex(bytes);
        return "GPU-%s-%s-%s-%s-%s".formatted(hex.substring(0, 8), hex.substring(8, 12),
                hex.substring(12, 16), hex.substring(16, 20), hex.substring(20));
    }

    // ---- errors ----

    private static String name(int code) {
        String[] name = new String[1];
        int status = JCudaDriver.cuGetErrorName(code, name);
        return (status == CUresult.CUDA_SUCCESS && name[0] != null ? name[0] : "error") + " (" + code + ")";
    }

    private static void verify(int code, String call) {
        if (code != CUresult.CUDA_SUCCESS) throw new IllegalStateException(call + ": " + name(code));
    }

    private void check(int code, String call) {
        if (code == CUresult.CUDA_SUCCESS) return;
        if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY) throw full();
        if (!sticky(code)) throw new IllegalStateException(call + ": " + name(code));
        lost = call + ": " + name(code);
        throw new DeviceLost(lost);
    }

    /// Memory that the driver wanted for itself is not there.
    private static OutOfDeviceMemory full() {
        long[] free = new long[1];
        long[] total = new long[1];
        JCudaDriver.cuMemGetInfo(free, total);
        return new OutOfDeviceMemory(0, total[0] - free[0], total[0]);
    }

    /// Whether no call can succeed after this error.
    private static boolean sticky(int code) {
        return switch (code) {
            case CUresult.CUDA_ERROR_DEINITIALIZED, CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE,
                    CUresult.CUDA_ERROR_ECC_UNCORRECTABLE, CUresult.CUDA_ERROR_NVLINK_UNCORRECTABLE,
                    CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
                    CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED, CUresult.CUDA_ERROR_ASSERT,
                    CUresult.CUDA_ERROR_HARDWARE_STACK_ERROR, CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    CUresult.CUDA_ERROR_MISALIGNED_ADDRESS, CUresult.CUDA_ERROR_INVALID_ADDRESS_SPACE,
                    CUresult.CUDA_ERROR_INVALID_PC, CUresult.CUDA_ERROR_LAUNCH_FAILED,
                    CUresult.CUDA_ERROR_EXTERNAL_DEVICE, CUresult.CUDA_ERROR_MPS_CLIENT_TERMINATED,
                    CUresult.CUDA_ERROR_UNKNOWN -> true;
            default -> false;
        };
    }

    /// Makes the context current. Platform threads keep it.
    private void enter() {
        if (lost != null) throw new DeviceLost(lost);
        if (closed) throw new IllegalStateException("the device is closed");
        if (!Thread.currentThread().isVirtual()) {
            if (CURRENT.get() == this) return;
            CURRENT.set(this);
        }
        check(JCudaDriver.cuCtxSetCurrent(context), "cuCtxSetCurrent");
    }

    /// Makes the context current for a library that is called without this class.
    void use() {
        enter();
    }

    // ---- memory ----

    private static CUdeviceptr pointer(long address) {
        return new CUdeviceptr().withByteOffset(address);
    }

    /// Free and total bytes of the card.
    long[] memory() {
        enter();
        long[] free = new long[1];
        long[] total = new long[1];
        check(JCudaDriver.cuMemGetInfo(free, total), "cuMemGetInfo");
        return new long[] {free[0], total[0]};
    }

    /// The address of new memory of the card; 0 if there is not enough.
    long allocate(long bytes) {
        enter();
        var memory = new DeviceAddress();
        int code = JCudaDriver.cuMemAlloc(memory, bytes);
        if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY) return 0;
        check(code, "cuMemAlloc");
        return memory.address();
    }

    /// Waits for all that the card does, and frees memory of [#allocate].
    void free(long memory) {
        enter();
        check(JCudaDriver.cuMemFree(pointer(memory)), "cuMemFree");
    }

    /// As [#allocate(long)], for what the stream does after this.
    long allocate(long bytes, CudaStream on) {
        enter();
        var memory = new DeviceAddress();
        int code = JCudaDriver.cuMemAllocAsync(memory, bytes, on);
        if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY) return 0;
        check(code, "cuMemAllocAsync");
        return memory.address();
    }

    /// Frees memory of [#allocate(long, CudaStream)] after what the stream did before this. On a lost card
    /// there is nothing left to free.
    void free(long memory, CudaStream on) {
        if (lost != null) return;
        enter();
        check(JCudaDriver.cuMemFreeAsync(pointer(memory), on), "cuMemFreeAsync");
    }

    /// Memory of the host that the card reads and writes directly, until [#freeHost].
    @SuppressWarnings("restricted")
    MemorySegment allocateHost(long bytes) {
        enter();
        var memory = new NativeAddress();
        int code = JCudaDriver.cuMemHostAlloc(memory, bytes, 0);
        if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY)
            throw new OutOfDeviceMemory(bytes, HostMemory.total(), HostMemory.total());
        check(code, "cuMemHostAlloc");
        return MemorySegment.ofAddress(memory.address()).reinterpret(bytes);
    }

    void freeHost(MemorySegment memory) {
        enter();
        check(JCudaDriver.cuMemFreeHost(new NativeAddress(memory.address())), "cuMemFreeHost");
    }

    void zero(long address, long bytes, CudaStream on) {
        enter();
        check(JCudaDriver.cuMemsetD8Async(pointer(address), (byte) 0, bytes, on), "cuMemsetD8Async");
    }

    void toDevice(long to, MemorySegment from, CudaStream on) {
        enter();
        check(JCudaDriver.cuMemcpyHtoDAsync(pointer(to), new NativeAddress(from.address()),
                from.byteSize(), on), "cuMemcpyHtoDAsync");
    }

    void toHost(MemorySegment to, long from, CudaStream on) {
        enter();
        check(JCudaDriver.cuMemcpyDtoHAsync(new NativeAddress(to.address()), pointer(from), to.byteSize(),
                on), "cuMemcpyDtoHAsync");
    }

    /// Copies rows between the card and the host; rows of the host follow each other.
    ///
    /// @param pitch bytes between the beginnings of two rows on the card
    /// @param width bytes of a row
    void copyRows(boolean toHost, long device, long pitch, MemorySegment host, long width, long rows,
            CudaStream on) {
        enter();
        var copy = new CUDA_MEMCPY2D();
        copy.srcMemoryType = toHost ? CUmemorytype.CU_MEMORYTYPE_DEVICE : CUmemorytype.CU_MEMORYTYPE_HOST;
        copy.dstMemoryType = toHost ? CUmemorytype.CU_MEMORYTYPE_HOST : CUmemorytype.CU_MEMORYTYPE_DEVICE;
        var own = new NativeAddress(host.address());
        if (toHost) {
            copy.srcDevice = pointer(device);
            copy.dstHost = own;
        } else {
            copy.srcHost = own;
            copy.dstDevice = pointer(device);
        }
        copy.srcPitch = toHost ? pitch : width;
        copy.dstPitch = toHost ? width : pitch;
        copy.WidthInBytes = width;
        copy.Height = rows;
        check(JCudaDriver.cuMemcpy2DAsync(copy, on), "cuMemcpy2DAsync");
    }

    void onDevice(long to, long from, long bytes, CudaStream on) {
        enter();
        check(JCudaDriver.cuMemcpyDtoDAsync(pointer(to), pointer(from), bytes, on), "cuMemcpyDtoDAsync");
    }

    // ---- streams and events ----

    CudaStream stream() {
        enter();
        var stream = new CudaStream();
        check(JCudaDriver.cuStreamCreate(stream, NON_BLOCKING), "cuStreamCreate");
        return stream;
    }

    void destroy(CudaStream stream) {
        enter();
        check(JCudaDriver.cuStreamDestroy(stream), "cuStreamDestroy");
    }

    /// Blocks until everything before is done.
    void await(CudaStream stream) {
        enter();
        check(JCudaDriver.cuStreamSynchronize(stream), "cuStreamSynchronize");
    }

    CUevent event() {
        enter();
        var event = new CUevent();
        check(JCudaDriver.cuEventCreate(event, DISABLE_TIMING), "cuEventCreate");
        return event;
    }

    /// An event that has a time; see [#milliseconds].
    CUevent timedEvent() {
        enter();
        var event = new CUevent();
        check(JCudaDriver.cuEventCreate(event, 0), "cuEventCreate");
        return event;
    }

    /// Time between two timed events that have happened.
    float milliseconds(CUevent from, CUevent to) {
        enter();
        float[] time = new float[1];
        check(JCudaDriver.cuEventElapsedTime(time, from, to), "cuEventElapsedTime");
        return time[0];
    }

    void destroy(CUevent event) {
        enter();
        check(JCudaDriver.cuEventDestroy(event), "cuEventDestroy");
    }

    void record(CUevent event, CudaStream on) {
        enter();
        check(JCudaDriver.cuEventRecord(event, on), "cuEventRecord");
    }

    /// What is put on the stream from now on happens after the event.
    void order(CudaStream stream, CUevent after) {
        enter();
        check(JCudaDriver.cuStreamWaitEvent(stream, after, 0), "cuStreamWaitEvent");
    }

    /// Whether everything before the event's record is done.
    boolean happened(CUevent event) {
        enter();
        int code = JCudaDriver.cuEventQuery(event);
        if (code == CUresult.CUDA_ERROR_NOT_READY) return false;
        check(code, "cuEventQuery");
        return true;
    }

    /// Blocks until the event has happened.
    void await(CUevent event) {
        enter();
        check(JCudaDriver.cuEventSynchronize(event), "cuEventSynchronize");
    }

    // ---- kernels ----

    CUmodule module(byte[] image) {
        enter();
        var module = new CUmodule();
        check(JCudaDriver.cuModuleLoadData(module, image), "cuModuleLoadData");
        return module;
    }

    void unload(CUmodule module) {
        enter();
        check(JCudaDriver.cuModuleUnload(module), "cuModuleUnload");
    }

    /// A kernel of a module; empty if it has none of this name.
    Optional<CudaFunction> function(CUmodule module, String name) {
        enter();
        var function = new CudaFunction();
        int code = JCudaDriver.cuModuleGetFunction(function, module, name);
        if (code == CUresult.CUDA_ERROR_NOT_FOUND) return Optional.empty();
        check(code, "cuModuleGetFunction of " + name);
        return Optional.of(function);
    }

    /// Lets a kernel use so much dynamic shared memory.
    void allowShared(CudaFunction function, int bytes) {
        enter();
        check(JCudaDriver.cuFuncSetAttribute(function,
                CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes),
                "cuFuncSetAttribute");
    }

    /// Launches a kernel.
    ///
    /// @param extra the addresses of its packed parameters and their size, as cuLaunchKernel takes them
    void launch(String name, CudaFunction function, int gridX, int gridY, int gridZ, int block,
            int sharedBytes, CudaStream on, NativeAddress extra) {
        enter();
        int code = JCudaDriver.cuLaunchKernel(function, gridX, gridY, gridZ, block, 1, 1, sharedBytes, on,
                null, extra);
        if (code != CUresult.CUDA_SUCCESS) check(code, "cuLaunchKernel of " + name);
    }

    /// Launches a kernel whose blocks may start when all blocks of the kernel before it on the stream have
    /// allowed it (`launchDependents` of ptx.cuh) or ended; what that kernel writes is there after
    /// `awaitPrevious`. Only one thread launches. Needs [DriverLibrary#hasLaunchKernelEx].
    void launchEarly(String name, CudaFunction function, int gridX, int gridY, int gridZ, int block,
            int sharedBytes, CudaStream on, NativeAddress extra) {
        enter();
        earlyLaunch.set(gridX, gridY, gridZ, block, sharedBytes, on.handle());
        int code = DriverLibrary.launchKernelEx(earlyLaunch.configuration(), function.handle(),
                extra.address());
        if (code != CUresult.CUDA_SUCCESS) check(code, "cuLaunchKernelEx of " + name);
    }

    // ---- graphs ----

    /// What this thread puts on a stream from now on is not executed but becomes a graph.
    void beginCapture(CudaStream on) {
        enter();
        check(JCudaDriver.cuStreamBeginCapture(on, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
                "cuStreamBeginCapture");
    }

    /// The graph of what was put on the stream since [#beginCapture].
    CUgraphExec endCapture(CudaStream on) {
        enter();
        var graph = new CUgraph();
        check(JCudaDriver.cuStreamEndCapture(on, graph), "cuStreamEndCapture");
        var program = new CUgraphExec();
        int code = JCudaDriver.cuGraphInstantiate(program, graph, 0);
        JCudaDriver.cuGraphDestroy(graph);
        check(code, "cuGraphInstantiate");
        return program;
    }

    /// Ends a capture that has failed.
    void abandonCapture(CudaStream on) {
        if (lost != null) return;
        enter();
        var graph = new CUgraph();
        int code = JCudaDriver.cuStreamEndCapture(on, graph);
        if (code == CUresult.CUDA_SUCCESS) JCudaDriver.cuGraphDestroy(graph);
    }

    void launch(CUgraphExec graph, CudaStream on) {
        enter();
        check(JCudaDriver.cuGraphLaunch(graph, on), "cuGraphLaunch");
    }

    /// Frees a graph, after its launches. On a lost card there is nothing left to free.
    void destroy(CUgraphExec graph) {
        if (lost != null) return;
        enter();
        check(JCudaDriver.cuGraphExecDestroy(graph), "cuGraphExecDestroy");
    }

    /// Gives the context back; memory that is not freed is the caller's mistake. A lost context ends with the
    /// process.
    @Override public void close() {
        if (closed) return;
        closed = true;
        if (lost == null) JCudaDriver.cuDevicePrimaryCtxRelease(device);
    }
}
