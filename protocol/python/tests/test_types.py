import math
import unittest

from case import datum
import bios
from bios import types
from bios.paths import CheckpointPath
from bios.training import combine, split


class TypesTest(unittest.TestCase):
    def test_a_model_input_is_its_tokens(self):
        given = types.ModelInput.from_ints(tokens=[1, 2]).append(types.EncodedTextChunk([3])).append_int(4)
        self.assertEqual((given.to_ints(), given.length, len(given.chunks)), ([1, 2, 3, 4], 4, 2))
        self.assertEqual(types.ModelInput.empty().append_int(7).to_ints(), [7])
        self.assertEqual(given.to_wire(), {"tokens_base64": "AQAAAAIAAAADAAAABAAAAA=="})
        for wrong in ("text", [1.5], [-1], [2 ** 31], None, 5):
            with self.assertRaises(bios.InvalidArgumentError):
                types.ModelInput.from_ints(wrong)

    def test_numbers_of_numpy_and_torch_are_numbers(self):
        try:
            import numpy
            import torch
        except ImportError:
            self.skipTest("needs numpy and torch")
        given = {"loss": numpy.float32(0.5), "n": numpy.int64(3), "yes": numpy.bool_(True), "t": [torch.tensor(0.25)],
                 "one": numpy.array([2])}
        self.assertEqual(types.json_object(given, "metadata"), {"loss": 0.5, "n": 3, "yes": True, "t": [0.25], "one": 2})
        self.assertEqual(types.AdamParams(learning_rate=torch.tensor(0.5)).learning_rate, 0.5)
        for value in (torch.tensor(1.0), numpy.float64(1.0), numpy.array(1.0)):
            self.assertEqual(types.TensorData(value), types.TensorData([1.0], "float32"))
        self.assertEqual(types.TensorData(torch.tensor(2)), types.TensorData([2]))
        for wrong in (numpy.float32("nan"), numpy.array([1, 2])):
            with self.assertRaisesRegex(bios.InvalidArgumentError, r"metadata\.x"):
                types.json_object({"x": wrong}, "metadata")

    def test_tensors_are_made_of_lists(self):
        self.assertEqual(types.TensorData([1, 2]).dtype, "int64")
        self.assertEqual(types.TensorData([1, 2.5]).dtype, "float32")
        nested = types.TensorData([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        self.assertEqual((nested.shape, nested.to_list()), ([3, 2], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        self.assertEqual(types.TensorData.from_wire(nested.to_wire()), nested)
        self.assertEqual(types.TensorData.from_wire({"dtype": "int64", "data": [1, 2]}).data, [1, 2])
        self.assertEqual(list(types.TensorData(data=[5], dtype="int64", shape=[1])), [5])
        self.assertEqual(nested[1], [3.0, 4.0])
        for wrong in ({"data": ["a"]}, {"data": 3}, {"data": [[1], [2, 3]]}, {"data": [1], "shape": [2]},
                      {"data": [1], "dtype": "int8"}, {"data": [1.5], "dtype": "int64"}):
            with self.assertRaises(bios.InvalidArgumentError):
                types.TensorData(**wrong)

    def test_tensors_are_made_of_numpy_arrays(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("needs numpy")
        for array in (numpy.arange(6).reshape(2, 3), numpy.linspace(0, 1, 4), numpy.float32([1, 2]),
                      numpy.array([True, False]), numpy.int32([3])):
            made = types.TensorData.from_numpy(array)
            numpy.testing.assert_allclose(made.to_numpy(), array)
            self.assertEqual(made.shape, list(array.shape))
        made = types.Datum(types.ModelInput.from_ints(numpy.array([1, 2])),
                           {"target_tokens": numpy.array([2, 3]), "weights": numpy.array([1, 0])})
        self.assertEqual(made.loss_fn_inputs["weights"].data, [1.0, 0.0])

    def test_tensors_are_made_of_torch_tensors(self):
        try:
            import torch
        except ImportError:
            self.skipTest("needs torch")
        given = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
        self.assertTrue(torch.equal(types.TensorData.from_torch(given).to_torch(), given.detach().float()))

    def test_known_inputs_get_their_types(self):
        made = types.Datum([1, 2], {"target_tokens": [2.0, 3.0], "weights": [1, 0]})
        self.assertEqual({k: t.dtype for k, t in made.loss_fn_inputs.items()},
                         {"target_tokens": "int64", "weights": "float32"})
        with self.assertRaisesRegex(bios.InvalidArgumentError, "loss_fn_inputs.target_tokens"):
            types.Datum([1, 2], {"target_tokens": [0.5, 1]})

    def test_settings_out_of_range_are_named(self):
        for make, field in ((lambda: types.AdamParams(learning_rate=-1), "adam_params.learning_rate"),
                            (lambda: types.AdamParams(beta1=1.0), "adam_params.beta1"),
                            (lambda: types.AdamParams(eps=math.nan), "adam_params.eps"),
                            (lambda: types.AdamParams(weight_decay="0"), "adam_params.weight_decay"),
                            (lambda: types.SamplingParams(max_tokens=0), "sampling_params.max_tokens"),
                            (lambda: types.SamplingParams(temperature=-0.1), "sampling_params.temperature"),
                            (lambda: types.SamplingParams(top_p=0), "sampling_params.top_p"),
                            (lambda: types.SamplingParams(top_k=0), "sampling_params.top_k"),
                            (lambda: types.SamplingParams(stop=[1, "a"]), "sampling_params.stop"),
                            (lambda: types.SamplingParams(seed=2 ** 64), "sampling_params.seed"),
                            (lambda: types.LoraConfig(rank=0), "rank"),
                            (lambda: types.LoraConfig(rank=True), "rank"),
                            (lambda: types.LoraConfig(target_modules=["nose"]), "target_modules"),
                            (lambda: types.LoraConfig(train_mlp=False, train_attn=False), "train_mlp")):
            with self.assertRaises(ValueError) as caught:
                make()
            self.assertEqual(caught.exception.field, field)

    def test_defaults_are_those_of_the_protocol(self):
        self.assertEqual(types.AdamParams().to_wire(), {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95,
                                                        "eps": 1e-12, "weight_decay": 0.0, "grad_clip_norm": 0.0})
        self.assertEqual(types.SamplingParams().to_wire(), {"temperature": 1.0, "top_k": -1, "top_p": 1.0})
        self.assertEqual(types.LoraConfig().to_wire(), {})

    def test_a_skipped_step_says_what_was_not_finite(self):
        def skipped(**metrics):
            return types.OptimStepResponse.from_wire({"metrics": {k + ":sum": v for k, v in metrics.items()}}).skipped
        self.assertIsNone(skipped())
        self.assertIsNone(skipped(skipped_steps=0.0))
        self.assertEqual(skipped(skipped_steps=1.0, skipped_moments=1.0), "moments")
        self.assertEqual(skipped(skipped_steps=1.0), "step")

    def test_a_sequence_has_the_models_own_logprobs_also_where_they_are_left_out(self):
        same = types.SampledSequence.from_wire({"tokens": [1], "logprobs": [-1.0], "stop_reason": "stop"})
        self.assertEqual(same.model_logprobs, [-1.0])
        other = types.SampledSequence.from_wire({"tokens": [1], "logprobs": [-1.0], "model_logprobs": [-2.0]})
        self.assertEqual((other.logprobs, other.model_logprobs), ([-1.0], [-2.0]))

    def test_paths_are_read_and_written(self):
        for text, kind in (("bios://usf-finance-abc123/step_5000", None), ("tinker://a:train:0/weights/x.y", "weights"),
                           ("bios://r/sampler_weights/final", "sampler_weights")):
            self.assertEqual(CheckpointPath.parse(text).kind, kind)
        self.assertEqual(str(CheckpointPath.parse("tinker://r/weights/x")), "bios://r/x")
        self.assertEqual(str(CheckpointPath.parse("bios://r/sampler_weights/x")), "bios://r/sampler_weights/x")
        for wrong in ("", "bios://", "bios://r", "bios://r/", "bios:///x", "bios://r/weights", "bios://r/a/b/c",
                      "BIOS://r/x", "bios://r/x y", "bios://<unique_id>/x", None, 3, "bios://r/x\n", "bios://r/..",
                      "bios://../x"):
            with self.assertRaises(bios.InvalidPathError):
                CheckpointPath.parse(wrong)

    def test_batches_are_split_and_their_results_joined(self):
        self.assertEqual([len(p) for p in split([datum(2)] * 2049)], [1024, 1024, 1])
        part = lambda n, **metrics: types.ForwardBackwardOutput(  # noqa: E731
            "T", [{}] * n, {k.replace("_", ":"): v for k, v in metrics.items()})
        joined = combine([part(1, a_sum=1.0, b_mean=1.0, c_max=3.0, d_min=2.0, e_unique=5.0, f_odd=1.0, g_sum=1.0),
                          part(3, a_sum=2.0, b_mean=5.0, c_max=1.0, d_min=1.0, e_unique=6.0, f_odd=1.0)])
        self.assertEqual(joined.metrics, {"a:sum": 3.0, "b:mean": 4.0, "c:max": 3.0, "d:min": 1.0, "e:unique": 5.0,
                                          "e:unique_1": 6.0})
        self.assertEqual(len(joined.loss_fn_outputs), 4)


if __name__ == "__main__":
    unittest.main()
