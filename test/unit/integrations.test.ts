import { describe, expect, it } from 'vitest';
import type { Integration } from '../../src/chat/request.ts';
import { loadConfig } from '../../src/config.ts';
import { checkIntegrations } from '../../src/gateway/integrations.ts';

const server = (server_url: string): Integration => ({
  type: 'ephemeral_mcp',
  server_label: 'tools',
  server_url,
  headers: { authorization: 'Bearer very-secret-token' },
});

const check = (integration: Integration, hosts: readonly string[], plugins: readonly string[] = []) =>
  checkIntegrations([integration], { mcpAllowedHosts: hosts, mcpAllowedPlugins: plugins });

describe('the host of an MCP server', () => {
  it.each([
    ['https://mcp.example.com/sse', '*'],
    ['https://mcp.example.com/sse', 'mcp.example.com'],
    ['https://MCP.Example.COM/sse', 'mcp.example.com'],
    ['https://mcp.example.com/sse', 'MCP.example.com'],
    ['https://mcp.example.com./sse', 'mcp.example.com'],
    ['http://mcp.example.com:8931/mcp', 'mcp.example.com'],
    ['https://mcp.example.com/sse', '*.example.com'],
    ['https://a.b.example.com/sse', '*.example.com'],
    ['http://127.0.0.1:8931/mcp', '127.0.0.1'],
    ['http://[::1]:8931/mcp', '::1'],
    ['http://[::1]:8931/mcp', '[::1]'],
    // Both are 127.0.0.1 to whoever connects.
    ['http://2130706433/mcp', '127.0.0.1'],
    ['http://0x7f.1/mcp', '127.0.0.1'],
  ])('of %s is allowed by %s', (url, allowed) => {
    expect(() => check(server(url), ['other.test', allowed])).not.toThrow();
  });

  it.each([
    ['https://mcp.example.com/sse', 'example.com'],
    ['https://example.com/sse', '*.example.com'],
    ['https://badexample.com/sse', '*.example.com'],
    ['https://mcp.example.com.evil.test/sse', 'mcp.example.com'],
    ['https://evil.test/mcp.example.com', 'mcp.example.com'],
    ['https://evil.test?mcp.example.com', '*.example.com'],
    ['https://evil.test#.example.com', '*.example.com'],
    ['http://127.0.0.1:8931/mcp', 'localhost'],
    ['http://2130706433/mcp', 'mcp.example.com'],
  ])('of %s is not allowed by %s', (url, allowed) => {
    expect(() => check(server(url), [allowed])).toThrow(
      expect.objectContaining({ code: 'FORBIDDEN', param: 'integrations[0]' }),
    );
  });

  it('is refused by a message that names the setting, the host and the place', () => {
    expect(() => check(server('https://evil.test:8443/x?token=abc'), [])).toThrow(
      '无权限:integrations[0]: 主机 evil.test 不在 MCP_ALLOWED_HOSTS 之内',
    );
  });
});

describe('the address of an MCP server', () => {
  it.each([
    ['not a url'],
    ['mcp.example.com/sse'],
    ['file:///etc/passwd'],
    ['ftp://mcp.example.com'],
    ['javascript:alert(1)'],
    ['https://user@mcp.example.com/'],
    ['https://user:secret@mcp.example.com/'],
    ['https://:secret@mcp.example.com/'],
    ['https://allowed.test\\@evil.test/'],
    ['https://allowed\n.test/'],
    ['https://allowed\t.test/'],
    [' https://allowed.test/'],
    ['https://allowed.test/\u0000'],
    ['http://'],
  ])('%j is an INVALID_PARAMS even where every host is allowed', (url) => {
    expect(() => check(server(url), ['*'])).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAMS', param: 'integrations[0].server_url' }),
    );
  });

  it('is not repeated in the refusal, and neither are its headers', () => {
    let message = '';
    try {
      check(server('https://user:secret@mcp.example.com/'), ['*']);
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain('server_url');
    expect(message).not.toMatch(/secret|user/);
  });
});

describe('a plugin', () => {
  it.each<[string, Integration]>([
    ['by its name', 'mcp/playwright'],
    ['as an object', { type: 'plugin', id: 'mcp/playwright', allowed_tools: ['browser_click'] }],
  ])('given %s is allowed by its exact name or by *', (_, integration) => {
    expect(() => check(integration, [], ['mcp/other', 'mcp/playwright'])).not.toThrow();
    expect(() => check(integration, [], ['*'])).not.toThrow();
    expect(() => check(integration, ['*'], ['mcp/play'])).toThrow(
      '无权限:integrations[0]: 插件 mcp/playwright 不在 MCP_ALLOWED_PLUGINS 之内',
    );
  });

  it('is refused by its place among several', () => {
    expect(() =>
      checkIntegrations([server('https://ok.test'), 'mcp/fine', 'mcp/other'], {
        mcpAllowedHosts: ['ok.test'],
        mcpAllowedPlugins: ['mcp/fine'],
      }),
    ).toThrow(expect.objectContaining({ code: 'FORBIDDEN', param: 'integrations[2]' }));
  });
});

describe('where nothing is configured', () => {
  const both: readonly Integration[] = [server('https://any.test'), 'mcp/any'];
  const key = { ADMIN_API_KEY: 'a'.repeat(24) };

  it('everything is allowed without keys on loopback', () => {
    expect(() => checkIntegrations(both, loadConfig({}))).not.toThrow();
  });

  it.each([
    [{ AUTH: 'on', ...key }],
    [{ HOST: '0.0.0.0', ...key }],
    [{ HOST: '0.0.0.0', AUTH: 'off', ALLOW_ANONYMOUS: 'true' }],
  ])('nothing is allowed with %j', (environment) => {
    for (const integration of both) {
      expect(() => checkIntegrations([integration], loadConfig(environment))).toThrow(
        expect.objectContaining({ code: 'FORBIDDEN' }),
      );
    }
  });
});
