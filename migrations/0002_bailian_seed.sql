-- Qwen's models at Bailian (ids 1 to 999), so that they can be called as soon as a key is set. A title that exists
-- already keeps its row and its routes. Limits are in tokens; where sources disagree they are left empty.

INSERT INTO providers (key, kind, name, base_url, api_key_env, origin)
VALUES ('bailian', 'bailian', '百炼平台', 'https://dashscope.aliyuncs.com/compatible-mode/v1', 'DASHSCOPE_API_KEY', 'environment')
ON CONFLICT (key) DO NOTHING;

INSERT INTO models (id, title, img, name, description, keyword, time, tag1, tag2, is_featured, context_length, max_output_tokens, origin, created_at, updated_at)
VALUES
  (1, 'qwen-turbo', 'https://example.com/qwen-turbo.png', '通义千问-Turbo', '通义千问超大规模语言模型,加速响应版本', '文本生成', '2025-01-01', '高速', 'Qwen', 1, 131072, 16384, 'seed', '2025-01-01T00:00:00', '2025-01-01T00:00:00'),
  (2, 'qwen-plus', 'https://example.com/qwen-plus.png', '通义千问-Plus', '通义千问超大规模语言模型,均衡性能版本', '文本生成', '2025-01-01', '均衡', 'Qwen', 0, 1000000, 32768, 'seed', '2025-01-01T00:00:00', '2025-01-01T00:00:00')
ON CONFLICT (title) DO NOTHING;

INSERT INTO models (id, title, name, description, keyword, time, tag1, tag2, type, is_featured, context_length, max_output_tokens, origin)
VALUES
  (3, 'qwen-max', '通义千问-Max', '通义千问超大规模语言模型,适合复杂任务', '文本生成', '2025-01-25', '旗舰', 'Qwen', 0, 0, 32768, 8192, 'seed'),
  (4, 'qwen-flash', '通义千问-Flash', '通义千问轻量模型,速度快、成本低,可选思考模式', '文本生成', '2025-07-28', '高速', 'Qwen', 0, 0, 1000000, 32768, 'seed'),
  (5, 'qwen-plus-latest', '通义千问-Plus-Latest', '通义千问-Plus的最新快照,可选思考模式', '文本生成', '', '均衡', 'Qwen', 0, 0, 1000000, 32768, 'seed'),
  (6, 'qwen-long', '通义千问-Long', '通义千问长文本模型,适合超长文档的理解与摘要', '长文本', '', '长文本', 'Qwen', 0, 0, 10000000, NULL, 'seed'),
  (10, 'qwen3-max', '通义千问3-Max', '通义千问3系列旗舰模型,可选思考模式', '文本生成', '2025-09-23', '旗舰', 'Qwen3', 0, 0, 262144, 65536, 'seed'),
  (11, 'qwen3-max-preview', '通义千问3-Max-Preview', '通义千问3-Max预览版,可选思考模式', '文本生成', '', '旗舰', 'Qwen3', 0, 0, 262144, 65536, 'seed'),
  (12, 'qwen3-max-2026-01-23', '通义千问3-Max-2026-01-23', '通义千问3-Max的2026年1月23日快照,可选思考模式', '文本生成', '2026-01-23', '旗舰', 'Qwen3', 0, 0, 262144, 65536, 'seed'),
  (20, 'qwen3.5-plus', '通义千问3.5-Plus', '通义千问3.5系列均衡模型,支持图像理解,默认思考', '文本生成,图像理解', '', '均衡', 'Qwen3.5', 0, 0, 1000000, 65536, 'seed'),
  (21, 'qwen3.5-flash', '通义千问3.5-Flash', '通义千问3.5系列轻量模型,支持图像理解,默认思考', '文本生成,图像理解', '', '高速', 'Qwen3.5', 0, 0, 1000000, 65536, 'seed'),
  (22, 'qwen3.6-plus', '通义千问3.6-Plus', '通义千问3.6系列均衡模型,支持图像理解,默认思考', '文本生成,图像理解', '', '均衡', 'Qwen3.6', 0, 0, 1000000, 65536, 'seed'),
  (23, 'qwen3.6-flash', '通义千问3.6-Flash', '通义千问3.6系列轻量模型,支持图像理解,默认思考', '文本生成,图像理解', '', '高速', 'Qwen3.6', 0, 0, 1000000, 65536, 'seed'),
  (24, 'qwen3.7-max', '通义千问3.7-Max', '通义千问3.7系列旗舰文本模型,默认思考', '文本生成', '', '旗舰', 'Qwen3.7', 0, 0, 1000000, 65536, 'seed'),
  (25, 'qwen3.7-plus', '通义千问3.7-Plus', '通义千问3.7系列均衡模型,支持图像理解,默认思考', '文本生成,图像理解', '', '均衡', 'Qwen3.7', 0, 0, 1000000, 65536, 'seed'),
  (26, 'qwen3.8-max', '通义千问3.8-Max', '通义千问3.8系列旗舰模型,支持图像理解,默认思考', '文本生成,图像理解', '', '旗舰', 'Qwen3.8', 0, 1, 1000000, 131072, 'seed'),
  (27, 'qwen3.8-flash', '通义千问3.8-Flash', '通义千问3.8系列轻量模型,支持图像理解,默认思考', '文本生成,图像理解', '', '高速', 'Qwen3.8', 0, 0, NULL, NULL, 'seed'),
  (40, 'qwen3-coder-plus', '通义千问3-Coder-Plus', '通义千问代码模型,擅长编程与工具调用', '代码生成', '2025-07-22', '代码', 'Qwen3', 0, 0, 1000000, 65536, 'seed'),
  (41, 'qwen3-coder-flash', '通义千问3-Coder-Flash', '通义千问代码模型,加速响应版本', '代码生成', '2025-07-28', '代码', 'Qwen3', 0, 0, 1000000, 65536, 'seed'),
  (50, 'qwen-vl-plus', '通义千问-VL-Plus', '通义千问视觉理解模型,均衡性能版本', '图像理解', '', '视觉', 'Qwen', 0, 0, 131072, 8192, 'seed'),
  (51, 'qwen-vl-max', '通义千问-VL-Max', '通义千问视觉理解模型,适合复杂任务', '图像理解', '', '视觉', 'Qwen', 0, 0, 131072, 8192, 'seed'),
  (52, 'qwen3-vl-plus', '通义千问3-VL-Plus', '通义千问3系列视觉理解模型,可选思考模式', '图像理解', '2025-09-23', '视觉', 'Qwen3', 0, 0, 262144, 32768, 'seed'),
  (53, 'qwen3-vl-flash', '通义千问3-VL-Flash', '通义千问3系列轻量视觉理解模型,可选思考模式', '图像理解', '2025-10-15', '视觉', 'Qwen3', 0, 0, NULL, 32768, 'seed'),
  (60, 'qwq-plus', '通义千问-QwQ-Plus', '通义千问推理模型,先思考后回答', '深度推理', '2025-03-05', '推理', 'QwQ', 0, 0, 131072, 8192, 'seed'),
  (61, 'qvq-max', '通义千问-QVQ-Max', '通义千问视觉推理模型,先思考后回答', '视觉推理', '2025-03-25', '推理', 'QVQ', 0, 0, 131072, 8192, 'seed'),
  (70, 'qwen3-235b-a22b', '通义千问3-235B-A22B', '通义千问3开源模型,默认思考', '文本生成', '2025-04-28', '开源', 'Qwen3', 0, 0, 131072, 16384, 'seed'),
  (71, 'qwen3-235b-a22b-thinking-2507', '通义千问3-235B-A22B-Thinking-2507', '通义千问3开源推理模型,先思考后回答', '深度推理', '2025-07-25', '开源', 'Qwen3', 0, 0, 131072, 32768, 'seed'),
  (72, 'qwen3-235b-a22b-instruct-2507', '通义千问3-235B-A22B-Instruct-2507', '通义千问3开源指令模型', '文本生成', '2025-07-21', '开源', 'Qwen3', 0, 0, 131072, 32768, 'seed'),
  (100, 'text-embedding-v3', '通用文本向量-v3', '通用文本向量模型,默认1024维', '文本向量', '', '向量', 'Embedding', 1, 0, 8192, NULL, 'seed'),
  (101, 'text-embedding-v4', '通用文本向量-v4', '通用文本向量模型,默认1024维,可选64至2048维', '文本向量', '', '向量', 'Embedding', 1, 0, 8192, NULL, 'seed')
ON CONFLICT (title) DO NOTHING;

INSERT INTO routes (model_id, provider_id, upstream_model, origin)
SELECT models.id, providers.id, models.title, 'seed'
FROM models, providers
WHERE models.origin = 'seed' AND models.id < 1000 AND providers.key = 'bailian'
ON CONFLICT (model_id, provider_id, upstream_model) DO NOTHING;
