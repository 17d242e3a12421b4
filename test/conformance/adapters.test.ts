/** Every adapter against the contract that all of them must pass. */
import { compatibleMode } from '../../src/adapters/bailian.ts';
import { lmstudioV0 } from '../../src/adapters/lmstudio-v0.ts';
import { lmstudioV1 } from '../../src/adapters/lmstudio-v1.ts';
import { chatCompletions } from '../../src/adapters/openai-compatible.ts';
import type { Parameters } from '../../src/chat/request.ts';
import { describeAdapter } from './adapter.ts';

const tools = [{ type: 'function', function: { name: 'weather' } }] as const satisfies Parameters['tools'];

describeAdapter({
  adapter: lmstudioV0,
  unsupported: {
    min_p: 0.1,
    reasoning: 'high',
    context_length: 4096,
    integrations: ['mcp/playwright'],
    store: true,
    previous_response_id: 'resp_1',
    logprobs: true,
    top_logprobs: 2,
  },
});

describeAdapter({
  adapter: lmstudioV1,
  unsupported: {
    stop: ['\n'],
    seed: 1,
    presence_penalty: 1,
    frequency_penalty: 1,
    logit_bias: { '1': 1 },
    tools: [...tools],
    tool_choice: 'required',
    parallel_tool_calls: true,
    response_format: { type: 'json_object' },
    ttl: 60,
    draft_model: 'tiny',
    logprobs: true,
    top_logprobs: 2,
    temperature: 1.5,
  },
});

describeAdapter({
  adapter: compatibleMode,
  target: { provider: 'bailian', displayName: '百炼平台', model: 'qwen-plus' },
  unsupported: {
    frequency_penalty: 1,
    logit_bias: { '1': 1 },
    min_p: 0.1,
    tool_choice: 'required',
    logprobs: true,
    temperature: 2,
    context_length: 4096,
    integrations: ['mcp/playwright'],
    store: true,
    previous_response_id: 'resp_1',
    ttl: 60,
    draft_model: 'tiny',
  },
});

describeAdapter({
  adapter: chatCompletions,
  target: { displayName: 'My Server', model: 'some-model' },
  unsupported: {
    reasoning: 'on',
    context_length: 4096,
    integrations: ['mcp/playwright'],
    store: true,
    previous_response_id: 'resp_1',
    ttl: 60,
    draft_model: 'tiny',
  },
});
