#!/usr/bin/env python3
"""The web page of `cairn serve` in a headless Chromium, against an API that says what the test tells it to.

With CAIRN_PAGE_SHOTS=FOLDER it also takes pictures there, to be looked at.
"""

import json
import os
import sys
import time
import unittest

import browser
import page_server
import program
import serving

SHOTS = os.environ.get("CAIRN_PAGE_SHOTS")

LAST = "document.querySelector('.message:last-child')"
DONE = (f"{LAST}?.matches('.assistant:not([aria-busy])') && !document.querySelector('.send.stopping')")

# Contrast (WCAG 2.2, 1.4.3) of every visible text and names of every control, in one pass over the page.
AUDIT = r"""(() => {
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const channels = (c) => { const p = parse(c); const srgb = c.startsWith('color(') ? p.map((v, i) => i < 3 ? v * 255 : v) : p;
                            return {rgb: srgb.slice(0, 3), a: srgb[3] ?? 1}; };
  const over = (top, under) => top.rgb.map((v, i) => v * top.a + under[i] * (1 - top.a));
  const ground = (e) => {
    const chain = [];
    for (; e; e = e.parentElement) chain.push(channels(getComputedStyle(e).backgroundColor));
    return chain.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
                           return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const seen = (e) => e.checkVisibility({visibilityProperty: true}) && !e.closest('.visually-hidden, [inert]');
  const found = [];
  const at = (e) => `<${e.tagName.toLowerCase()} id=${e.id} class=${e.className.baseVal ?? e.className}> "${e.textContent.trim().slice(0, 30)}"`;
  for (const e of document.querySelectorAll('body, body *')) {
    if (!seen(e)) continue;
    const hasText = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || (e.matches('input, textarea, select') && e.type !== 'checkbox');
    const inactive = e.closest(':disabled');
    if (hasText && !inactive) {
      const style = getComputedStyle(e), under = ground(e);
      let opacity = 1;
      for (let p = e; p; p = p.parentElement) opacity *= Number(getComputedStyle(p).opacity);
      const ink = over({...channels(style.color), a: channels(style.color).a * opacity}, under);
      const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
      const enough = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
      if (ratio < enough) found.push(`contrast ${ratio.toFixed(2)} of ${at(e)}`);
      if (size < 12) found.push(`text of ${size} px in ${at(e)}`);
    }
    if (e.matches('button, input, select, textarea, a[href], summary, [role=img]') && e.type !== 'file') {
      const label = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent || e.getAttribute('title');
      if (!label?.trim()) found.push(`no name: ${at(e)}`);
      const box = e.getBoundingClientRect();
      if (!e.matches('a, [role=img], .prose *') && (box.width < 24 || box.height < 24)) found.push(`target of ${box.width}x${box.height}: ${at(e)}`);
    }
    if (e.matches('img') && !e.hasAttribute('alt')) found.push(`no alt: ${at(e)}`);
    for (const name of ['aria-controls', 'aria-labelledby', 'aria-describedby', 'for'])
      for (const id of (e.getAttribute(name) || '').split(' ').filter(Boolean)) if (!document.getElementById(id)) found.push(`${name}=${id} leads nowhere`);
    if (e.tabIndex > 0) found.push(`tabindex above 0: ${at(e)}`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) found.push(`id ${id} twice`);
  let level = 0;
  for (const h of document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')) {
    const next = Number(h.tagName[1]);
    if (next > level + 1 && !h.closest('.prose')) found.push(`heading ${next} after ${level}: ${at(h)}`);
    level = next;
  }
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) found.push('not one main and one h1');
  if (!document.documentElement.lang || !document.title) found.push('no language or title');
  if (document.documentElement.scrollWidth > innerWidth) found.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${innerWidth}`);
  for (const e of document.querySelectorAll('button, select, input, textarea')) {
    if (!seen(e)) continue;
    const box = e.getBoundingClientRect();
    if (box.left < -0.5 || box.right > innerWidth + 0.5) found.push(`outside the window: ${at(e)}`);
  }
  return found;
})()"""


class PageTest(unittest.TestCase):
    touch = False

    @classmethod
    def setUpClass(cls):
        cls.browser = browser.Browser(browser.find(), touch=cls.touch)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.api = page_server.Api()
        self.addCleanup(lambda: self.api.close())
        self.allowed = []  # parts of console complaints that a test provokes

    def open(self, **options):
        self.page = self.browser.open(self.api.url, **options)
        self.addCleanup(self.leave, self.page)
        self.page.wait("document.querySelector('#model option') && document.querySelector('#model').textContent !== '…'")
        return self.page

    def leave(self, page):
        complaints = [c for c in page.complaints if not any(part in c for part in self.allowed)]
        page.close()
        self.assertEqual(complaints, [])

    def send(self, text, done=True):
        page = self.page
        page.js("document.querySelector('#message').focus()")
        page.type(text)
        page.key("Enter")
        if done:
            page.wait("document.querySelector('#message').value === ''")
            page.wait(DONE)

    def text(self, selector=".message:last-child"):
        return self.page.js(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.innerText ?? null")

    def look(self, name):
        if SHOTS:
            os.makedirs(SHOTS, exist_ok=True)
            self.page.browser.pump(0.3)
            self.page.screenshot(os.path.join(SHOTS, f"{name}.png"))

    def audit(self, where):
        self.page.js("document.getAnimations().forEach((a) => a.finish?.call && a.effect?.getTiming().iterations !== Infinity && a.finish())")
        self.assertEqual(self.page.js(AUDIT), [], where)


class Chat(PageTest):
    def test_an_answer_streams_and_is_measured_and_kept(self):
        page = self.open()
        page.type("Hello")
        page.key("Enter", shift=True)
        page.type("there")
        self.assertEqual(page.js("document.querySelector('#message').value"), "Hello\nthere")
        page.key("Enter")
        page.wait(DONE)
        self.assertEqual(self.text(".prose"), "You said: Hello\nthere")
        self.assertRegex(self.text(".meta"), r"llama-3.2-1b-instruct-q4_k_m · \d+ tokens · (?:[\d.]+ tok/s · )?first after \d+ ms · prompt 512 \(480 reused\)")
        body = self.api.requests[0]
        self.assertEqual(body, {"model": "llama-3.2-1b-instruct-q4_k_m", "messages": [{"role": "user", "content": "Hello\nthere"}],
                                "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(page.js("document.title"), "Hello – cairn")
        self.send("again, with some more words, so that there is a speed to tell")
        self.assertRegex(self.text(".meta"), r" · [\d.]+ tok/s · ")
        self.assertEqual([m["role"] for m in self.api.requests[1]["messages"]], ["user", "assistant", "user"])
        self.assertEqual(self.api.requests[1]["messages"][1]["content"], "You said: Hello\nthere")
        page.reload()
        page.wait("document.querySelectorAll('.message').length === 4")
        self.assertRegex(self.text(".prose"), "^You said: again")
        self.assertEqual(page.js("document.querySelector('.chat-title').textContent"), "Hello")

    def test_stop_by_key_and_button_keeps_what_came(self):
        page = self.open()
        for stop in (lambda: page.key("Escape"), lambda: page.click("#send")):
            self.send("slow please", done=False)
            page.wait(f"{LAST}?.querySelector('.prose')?.innerText.length > 60")
            self.look("streaming")
            stop()
            page.wait(DONE)
            self.assertIn("Stopped.", self.text())
            self.assertIn("One word at a time", self.text(".prose"))
            self.assertRegex(self.text(".meta"), r"≈ \d+ tokens")
        page.wait("true")
        deadline = time.monotonic() + 10
        while self.api.gone < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.api.gone, 2, "the server was not told")

    def test_answer_again_keeps_both(self):
        page = self.open()
        self.send("ring buffer")
        page.click(".message:last-child [aria-label='Answer again']")
        page.wait("document.querySelector('.which')?.textContent === '2 / 2'")
        page.wait(DONE)
        self.assertEqual(len(self.api.requests[1]["messages"]), 1)
        page.click("[aria-label='Earlier answer']")
        page.wait("document.querySelector('.which').textContent === '1 / 2'")
        self.assertTrue(page.js("document.querySelector('[aria-label=\"Earlier answer\"]').disabled"))

    def test_edit_replaces_what_came_after_and_can_be_undone(self):
        page = self.open(dark=True)
        self.send("first")
        self.send("second")
        page.js("document.querySelectorAll('.message.user')[0].querySelector('[aria-label^=Edit]').click()")
        page.js("document.querySelector('.edit textarea').value = ''")
        page.type("changed")
        self.look("edit")
        self.audit("edit")
        page.key("Enter", ctrl=True)
        page.wait("document.querySelectorAll('.message').length === 2")
        page.wait(DONE)
        self.assertEqual(self.text(".prose"), "You said: changed")
        self.assertEqual([m["content"] for m in self.api.requests[-1]["messages"]], ["changed"])
        self.look("undo")
        self.audit("undo")
        page.click(".toast .quiet-button")
        page.wait("document.querySelectorAll('.message').length === 4")
        self.assertEqual(self.text(".prose"), "You said: second")
        page.js("document.querySelector('#message').focus()")
        page.key("ArrowUp")
        self.assertEqual(page.js("document.activeElement.value"), "second")
        page.key("Escape")
        page.wait("!document.querySelector('.edit')")

    def test_reasoning_folds_away(self):
        page = self.open()
        self.send("please think", done=False)
        page.wait("document.querySelector('.reasoning summary')?.textContent === 'Thinking…'")
        page.wait(DONE)
        self.assertRegex(page.js("document.querySelector('.reasoning summary').textContent"), r"^Thought for \d+ ms$")
        self.assertEqual(self.text(".prose"), "Take eleven.")
        self.assertFalse(page.js("document.querySelector('.reasoning').open"))
        page.click(".reasoning summary")
        self.assertIn("seven is prime".lower(), self.text(".reasoning-text").lower())
        self.look("reasoning")
        self.audit("reasoning")
        self.send("next")
        self.assertNotIn("prime", json.dumps(self.api.requests[-1]))

    def test_tool_calls_are_shown_and_answered(self):
        page = self.open(dark=True)
        self.send("weather in Berlin")
        self.assertIn("get_weather", self.text(".tool-head"))
        self.assertEqual(json.loads(self.text(".tool-call pre")), {"city": "Berlin", "days": 3})
        page.js("document.querySelector('.tool-results textarea').focus()")
        page.type("12 degrees")
        self.look("tools")
        self.audit("tools")
        page.click(".tool-results button")
        page.wait("document.querySelectorAll('.message').length === 4")
        page.wait(DONE)
        self.assertEqual(self.text(".prose"), "The tool said: 12 degrees")
        sent = self.api.requests[-1]["messages"]
        self.assertEqual(sent[1]["tool_calls"], [{"id": "call_1", "type": "function",
                                                  "function": {"name": "get_weather", "arguments": '{"city": "Berlin", "days": 3}'}}])
        self.assertEqual(sent[2], {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"})

    def test_a_chat_goes_on_while_another_is_shown(self):
        page = self.open()
        self.send("slow one", done=False)
        page.wait(f"{LAST}?.querySelector('.prose')?.innerText.length > 20")
        page.key("k", ctrl=True)
        page.wait("document.querySelectorAll('.message').length === 0")
        self.assertTrue(page.js("document.querySelector('.running-dot') !== null"))
        self.send("quick")
        self.assertEqual(self.text(".prose"), "You said: quick")
        page.js("[...document.querySelectorAll('.chat-open')].find((b) => b.title === 'slow one').click()")
        length = page.wait(f"{LAST}?.querySelector('.prose')?.innerText.length")
        page.wait(f"{LAST}.querySelector('.prose').innerText.length > {length + 20}")
        page.key("Escape")
        page.wait(DONE)
        self.assertNotIn("quick", self.text("#messages"))

    def test_scrolling_up_is_left_alone(self):
        page = self.open(height=500)
        self.send("ring buffer")
        self.send("slow", done=False)
        page.wait(f"{LAST}?.querySelector('.prose')?.innerText.length > 20")
        at_end = "(() => { const t = document.querySelector('#thread'); return t.scrollHeight - t.scrollTop - t.clientHeight < 60; })()"
        self.assertTrue(page.js(at_end))
        page.js("document.querySelector('#thread').scrollTop = 0")
        page.wait("!document.querySelector('#latest').hidden")
        before = page.js(f"{LAST}.querySelector('.prose').innerText.length")
        page.wait(f"{LAST}.querySelector('.prose').innerText.length > {before + 40}")
        self.assertEqual(page.js("document.querySelector('#thread').scrollTop"), 0)
        page.click("#latest")
        page.wait(at_end)
        page.key("Escape")
        page.wait(DONE)

    def test_chats_are_renamed_deleted_exported_and_imported(self):
        page = self.open(dark=True)
        self.send("keep me")
        page.key("k", ctrl=True)
        self.send("drop me")
        page.js("document.querySelector('[aria-label=\"Rename keep me\"]').click()")
        page.wait("document.querySelector('dialog[open] input')")
        page.type("A new name")
        self.look("rename")
        self.audit("rename")
        page.key("Enter")
        page.wait("!document.querySelector('dialog')")
        titles = "[...document.querySelectorAll('.chat-title')].map((t) => t.textContent)"
        self.assertEqual(sorted(page.js(titles)), ["A new name", "drop me"])
        page.js("document.querySelector('[aria-label=\"Delete drop me\"]').click()")
        page.wait("document.querySelectorAll('.chat').length === 1 && document.querySelectorAll('.message').length === 0")
        page.click(".toast .quiet-button")
        page.wait("document.querySelectorAll('.chat').length === 2")
        page.js("document.querySelector('[aria-label=\"Delete drop me\"]').click()")
        exported = page.js("""import('/page/store.js').then((s) => {
            const text = s.exportChats(s.listChats().map(({id}) => s.loadChat(id)));
            s.importChats(text).forEach(s.saveChat);
            const bad = ['', '[]', '{"format": "cairn-chats"}', '{"format": "cairn-chats", "chats": [{}]}',
                         '{"format": "cairn-chats", "chats": [{"messages": [{"role": "assistant", "answers": []}]}]}',
                         '{"format": "cairn-chats", "chats": [{"messages": [{"role": "system", "content": "x"}]}]}'];
            const refused = bad.map((b) => { try { s.importChats(b); return null; } catch (e) { return e.message; } });
            const odd = s.importChats('{"format": "cairn-chats", "chats": [{"id": "../x", "title": 7, "messages": [{"role": "user", "content": {"a": 1}}]}]}');
            return [text, s.listChats().length, refused, odd[0]]; })""")
        self.assertEqual(json.loads(exported[0])["chats"][0]["messages"][1]["answers"][0]["content"], "You said: keep me")
        self.assertEqual(exported[1], 2)
        self.assertNotIn(None, exported[2])
        self.assertRegex(exported[3]["id"], r"^[a-z0-9]+$")
        self.assertEqual((exported[3]["title"], exported[3]["messages"]), ("New chat", [{"role": "user", "content": ""}]))

    def test_settings_reach_the_request(self):
        page = self.open()
        page.click("#open-settings")
        for name, value in (("temperature", "0.7"), ("top_p", "0.9"), ("top_k", "40"), ("min_p", "0.05"), ("max_tokens", "256"), ("seed", "7")):
            page.js(f"document.querySelector('#set-{name}').focus()")
            page.type(value)
        for name, value in (("system", "Be brief."), ("stop", "END\n\\n\\n"), ("extra", '{"logit_bias": {"5": -100}}')):
            page.js(f"document.querySelector('#set-{name}').focus()")
            page.type(value)
        self.look("settings")
        self.audit("settings")
        self.send("hi")
        body = self.api.requests[-1]
        self.assertEqual(body["messages"][0], {"role": "system", "content": "Be brief."})
        for name, value in (("temperature", 0.7), ("top_p", 0.9), ("top_k", 40), ("min_p", 0.05), ("max_tokens", 256), ("seed", 7),
                            ("stop", ["END", "\n\n"]), ("logit_bias", {"5": -100})):
            self.assertEqual(body[name], value, name)
        page.js("document.querySelector('#set-top_p').value = ''; document.querySelector('#set-top_p').focus()")
        page.type("7")
        self.send("refused", done=False)
        page.wait("document.querySelector('.toast')?.textContent.includes('Top p in the settings is 7; it can be from 0 to 1')")
        self.assertEqual(len(self.api.requests), 1)
        self.assertEqual(page.js("document.querySelector('#message').value"), "refused")
        page.js("[...document.querySelectorAll('#settings button')].find((b) => b.textContent.startsWith('Back to')).click()")
        page.js("document.querySelector('#message').focus()")
        page.key("Enter")
        page.wait(DONE)
        self.assertNotIn("top_k", self.api.requests[-1])

    def test_the_model_is_chosen_and_remembered(self):
        page = self.open()
        page.js("(() => { const m = document.querySelector('#model'); m.value = 'cairn-stories'; m.dispatchEvent(new Event('change')); })()")
        self.send("hi")
        self.assertEqual(self.api.requests[-1]["model"], "cairn-stories")
        page.reload()
        page.wait("document.querySelector('#model')?.value === 'cairn-stories'")

    def test_a_key_is_asked_for_and_forgotten_with_the_tab(self):
        self.allowed = ["401 (Unauthorized)"]
        self.api.key = "secret"
        page = self.open()
        page.wait("document.querySelector('dialog[open] input[type=password]')")
        self.look("key")
        self.audit("key")
        for wrong in ("wrong", "\u043a\u043b\u044e\u0447"):  # the second cannot even be sent
            page.type(wrong)
            page.js("document.querySelector('dialog').dataset.answered = 1")
            page.key("Enter")
            page.wait("document.querySelector('dialog[open]:not([data-answered])')")
        self.assertIn("refused", self.text("dialog"))
        page.key("Escape")
        page.wait("!document.querySelector('dialog')")
        self.send("hello")
        page.wait("document.querySelector('dialog[open] input')")
        self.assertIn("The server asks for an API key", self.text())
        page.type("secret")
        page.key("Enter")
        page.wait("!document.querySelector('dialog')")
        page.wait(f"{LAST}.innerText.includes('You said: hello')")
        self.assertEqual(page.js("sessionStorage.getItem('cairn.key')"), "secret")
        self.assertNotIn("secret", page.js("JSON.stringify(localStorage)"))
        self.assertFalse(page.js("document.querySelector('#model').disabled"))


class Trouble(PageTest):
    def test_errors_are_told_in_words_with_numbers(self):
        self.allowed = ["400 (Bad Request)", "500 (Internal Server Error)", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
        page = self.open()
        for asked, told in (("overflow", ["Too long for this model", "9,826", "8,192", "Start a new chat", "req-7f3a"]),
                            ("fault", ["The server failed at this request", "internal error"]),
                            ("broken", ["It begins and", "The connection broke", "the connection broke during the answer"]),
                            ("failing", ["Half an", "step 17 failed: out of memory"]),
                            ("cut", ["This answer goes on and", "token limit"]),
                            ("empty", ["ended its answer without a word"])):
            page.key("k", ctrl=True)
            self.send(asked)
            for part in told:
                self.assertIn(part, self.text(), asked)
            if asked == "overflow":
                self.look("error")
                self.audit("error")

    def test_what_can_be_read_of_a_damaged_stream_is(self):
        self.open()
        self.send("malformed")
        self.assertEqual(self.text(".prose"), "Still grün")
        self.assertIn("1 event of the stream could not be read", self.text())

    def test_a_busy_server_is_asked_again(self):
        self.allowed = ["429 (Too Many Requests)"]
        page = self.open(dark=True)
        self.send("busy?", done=False)
        page.wait("document.querySelector('.notice')?.innerText.includes('Trying again in 2 s')")
        self.assertIn("64 requests are waiting", self.text())
        self.look("busy")
        self.audit("busy")
        page.wait(DONE)
        self.assertEqual(self.text(".prose"), "There was room.")
        self.assertEqual(page.js("document.querySelectorAll('.notice').length"), 0)
        self.send("busy once more", done=False)  # and can be stopped while it waits
        page.wait("document.querySelector('.notice')?.innerText.includes('Trying again')")
        page.key("Escape")
        page.wait(DONE)
        self.assertIn("Stopped.", self.text())

    def test_a_server_that_is_gone(self):
        self.allowed = ["ERR_CONNECTION_REFUSED"]
        page = self.open()
        self.send("hello")
        self.api.close()
        self.send("anyone?")
        self.assertIn("The server cannot be reached", self.text())
        self.assertIn("Try again", self.text())
        self.api = page_server.Api(self.api.server_address[1])
        page.js(f"[...{LAST}.querySelectorAll('button')].find((b) => b.textContent === 'Try again').click()")
        page.wait(f"{LAST}.innerText.includes('You said: anyone?')")

    def test_a_model_cannot_make_markup_of_its_text(self):
        page = self.open()
        page.js("addEventListener('securitypolicyviolation', (e) => { window.violations = (window.violations || 0) + 1; })")
        self.send("hostile")
        self.assertIsNone(page.js("window.hacked ?? null"))
        self.assertIsNone(page.js("window.violations ?? null"), "the policy had to step in: the page itself let markup through")
        self.assertEqual(page.js("document.querySelectorAll('#messages :is(script, img, iframe, svg:not(.icon), object, embed, form, style, link, base)').length"), 0)
        links = page.js("[...document.querySelectorAll('.prose a')].map((a) => a.getAttribute('href'))")
        self.assertIn("https://example.org/a?b=c&d=e", links)
        for link in links:
            self.assertRegex(link, r"^https://(example\.org|evil\.example|a\.example)/")
        self.assertEqual(page.js("[...document.querySelectorAll('#messages *')].filter((e) => [...e.attributes].some((a) => a.name.startsWith('on'))).length"), 0)
        text = self.text(".prose")
        for part in ("<script>window.hacked = 1</script>", "<img src=x onerror=", "javascript:window.hacked=4", "U+202E", "<script>window.hacked=10"):
            self.assertIn(part, text)
        self.assertLessEqual(page.js("document.documentElement.scrollWidth - innerWidth"), 0)
        self.assertLessEqual(page.js("document.querySelector('#thread').scrollWidth - document.querySelector('#thread').clientWidth"), 0)
        self.look("hostile")
        self.audit("hostile")
        self.assertIn("user\u202e", page.js("(async () => { let copied; document.execCommand = () => 0; "
                      "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (t) => { copied = t; }}}); "
                      "document.querySelector('.code button').click(); await 0; return copied; })()"))
        # the same from a stored chat, and in the places that show names
        page.js("""(() => { const id = 'xss'; localStorage.setItem('cairn.chat.' + id, JSON.stringify({id, title: '<img src=x onerror=window.hacked=1>', updated: 9e15,
            messages: [{role: 'user', content: '<img src=x onerror=window.hacked=2>'}, {role: 'assistant', shown: 0, answers: [{content: 'x',
            model: '<b onmouseover=window.hacked=3>', toolCalls: [{name: '<i>', arguments: '</pre><script>window.hacked=4</script>'}], reasoning: '<script>'}]}]}));
            dispatchEvent(new StorageEvent('storage', {key: null})); })()""")
        page.js("document.querySelector('.chat-open').click()")
        page.wait("document.querySelectorAll('.message').length === 2")
        self.assertIsNone(page.js("window.hacked ?? null"))
        self.assertIn("<img src=x", self.text("#title"))


class Markdown(PageTest):
    def test_however_a_text_is_split_it_looks_the_same(self):
        page = self.open()
        texts = [page_server.MARKDOWN, page_server.HOSTILE, page_server.RTL, "".join(page_server.long_answer(400)),
                 "a\n- b\n  - c\n\n    d\n\n2. e\n> q\nlazy\n> - r\n```\nopen", "***a** b* __c__ ~~d~~ `` ` `` \\*e\\* $$x_1*y*$$ \\(a_b_c\\)",
                 "| a | b |\n|---|\n| c |\n\n| a | b\n|--|:-:\n| `x|y` | \\| |\nend", "# h #\n####### no\n---\n***\n* * *\n1) x\n1. y\n- [ ] t\n- [x] u\n\n~~~js\n``` \n~~~",
                 "x " * 5000 + "**bold** " * 2000 + "\n" + "[l](https://a.example) " * 800, ">" * 40 + " deep\n" + "- " * 40 + "x\n" + "  " * 30 + "- y"]
        differing = page.js(f"""import('/page/markdown.js').then(({{MarkdownStream, drawMarkdown}}) => {{
            let seed = 1; const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
            const found = [];
            const html = (e) => {{ e.normalize(); return e.innerHTML; }};
            for (const [n, text] of {json.dumps(texts)}.entries()) {{
              const whole = document.createElement('div'); drawMarkdown(whole, text);
              const once = html(whole);
              for (let round = 0; round < 25; ++round) {{
                const div = document.createElement('div'), stream = new MarkdownStream(div), longest = [1, 3, 12, 80, 1000][round % 5];
                if (text.length > 5000 && longest < 12) continue;
                for (let i = 0; i < text.length;) {{ const size = 1 + Math.floor(random() * longest); stream.append(text.slice(i, i + size)); i += size; if (random() < 0.7) stream.draw(); }}
                stream.finish();
                if (html(div) !== once) {{ found.push([n, longest, once.slice(0, 3000), div.innerHTML.slice(0, 3000)]); break; }}
              }}
            }}
            return found; }})""")
        self.assertEqual(differing, [])

    def check(self, text, html):
        got = self.page.js(f"import('/page/markdown.js').then(({{drawMarkdown}}) => {{ const d = document.createElement('div'); drawMarkdown(d, {json.dumps(text)}); "
                           "for (const e of d.querySelectorAll('*')) for (const a of [...e.attributes]) if (a.name !== 'href' && a.name !== 'start') e.removeAttribute(a.name); "
                           "return d.innerHTML; })")
        self.assertEqual(got, html)

    def test_what_is_known_of_the_notation(self):
        self.open()
        for text, html in (
                ("a **b** *c* `d` ~~e~~", "<p>a <strong>b</strong> <em>c</em> <code>d</code> <del>e</del></p>"),
                ("***x***", "<p><em><strong>x</strong></em></p>"), ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
                ("**open", "<p>**open</p>"), ("a\nb", "<p>a<br>b</p>"), ("# T #", "<h3>T</h3>"), ("#tag", "<p>#tag</p>"),
                ("[t](https://x.example/a_(b))", '<p><a href="https://x.example/a_(b)">t</a></p>'),
                ("https://x.example/a, (https://y.example).", '<p><a href="https://x.example/a">https://x.example/a</a>, (<a href="https://y.example/">https://y.example</a>).</p>'),
                ("[a](ftp://x) [b] [c](", "<p>[a](ftp://x) [b] [c](</p>"),
                ("- a\n- b\n  1. c\n- d", "<ul><li><p>a</p></li><li><p>b</p><ol><li><p>c</p></li></ol></li><li><p>d</p></li></ul>"),
                ("3. a\n\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
                ("> a\n> b\n\nc", "<blockquote><p>a<br>b</p></blockquote><p>c</p>"),
                ("a | b\n--|--\n1 | 2", "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table></div>"),
                ("\\(a_1 b_2\\) \\*x\\*", "<p><span>\\(a_1 b_2\\)</span> *x*</p>")):
            with self.subTest(text):
                self.check(text, html)

    def test_a_long_answer_costs_what_its_length_costs(self):
        """Time per token of drawing an answer token by token, at 2,000 and at 16,000 tokens: quadratic would be eightfold."""
        page = self.open()

        def cost(pieces):
            return page.js(f"""import('/page/markdown.js').then(({{MarkdownStream}}) => {{
                const pieces = {json.dumps(pieces)}, times = [];
                for (let round = 0; round < 3; ++round) {{
                  const div = document.createElement('div'), stream = new MarkdownStream(div), start = performance.now();
                  for (const piece of pieces) {{ stream.append(piece); stream.draw(); }}
                  stream.finish();
                  times.push(performance.now() - start);
                }}
                return Math.min(...times) / pieces.length; }})""")

        cases = {"mixed": page_server.long_answer, "one paragraph": lambda n: ["word "] * n, "one list": lambda n: ["- item\n", "  more "] * (n // 2),
                 "one code block": lambda n: ["```\n"] + ["code ", "line\n"] * (n // 2), "one line of code": lambda n: ["```\n"] + ["x = 1; "] * n,
                 "one quote": lambda n: ["> said "] + ["and "] * 20 + (["\n> more "] + ["words "] * 20) * (n // 21),
                 "one table": lambda n: ["| a | b |\n|---|---|\n"] + ["| cell ", "| cell |\n"] * (n // 2), "open marks": lambda n: ["*a ", "[b ", "_c ", "**d "] * (n // 4)}
        for name, made in cases.items():
            few, many = cost(made(2000)), cost(made(16000))
            print(f"{name}: {1000 * few:.1f} us a token at 2,000 tokens, {1000 * many:.1f} at 16,000", file=sys.stderr)
            self.assertLess(many, 4 * few + 0.02, name)

    def test_2000_tokens_through_the_whole_page(self):
        page = self.open()
        start = time.monotonic()
        self.send("2000 tokens please", done=False)
        page.wait("document.querySelector('.send.stopping')")
        page.wait(DONE, timeout=60)
        print(f"2,000 tokens, sent as fast as the page reads: {time.monotonic() - start:.2f} s", file=sys.stderr)
        self.assertIn("tokens", self.text(".meta"))
        self.assertLess(time.monotonic() - start, 20)
        self.look("long")


class Engine(PageTest):
    def test_the_view_shows_what_it_is_told(self):
        page = self.open()
        page.click("#open-engine")
        page.wait("document.querySelectorAll('.requests tbody tr').length === 7")
        shown = self.text("#engine")
        for part in ("cpu, 16 threads, AMX", "Running", "Waiting", "predicted", "of 4\u202f096", "on disk", "prefill"):
            self.assertIn(part, shown)
        self.assertGreater(page.js("document.querySelector('.spark .line').getAttribute('d').split('L').length"), 100, "history was not used")
        before = page.js("document.querySelector('.spark .line').getAttribute('d')")
        page.wait(f"document.querySelector('.spark .line').getAttribute('d') !== {json.dumps(before)}")
        self.look("engine")
        self.audit("engine")
        page.key("Escape")
        page.wait("document.querySelector('#panel').hidden")

    def test_missing_fields_and_a_missing_view(self):
        self.allowed = ["404 (Not Found)"]
        self.api.engine = "sparse"
        page = self.open()
        page.click("#open-engine")
        page.wait("document.querySelector('.metric .value')?.textContent === '1'")
        self.assertEqual(page.js("document.querySelectorAll('.requests tbody tr').length"), 1)
        self.api.engine = False
        page.wait("document.querySelector('.engine-state').textContent === 'This server does not tell about its engine.'")


class Everyone(PageTest):
    def test_names_contrast_and_focus_in_every_state(self):
        for dark in (False, True):
            page = self.open(dark=dark)
            name = "dark" if dark else "light"
            self.assertEqual(page.js("document.documentElement.dataset.theme"), name)
            self.audit(f"{name}, empty")
            self.look(f"empty-{name}")
            self.send("ring buffer")
            page.js("document.querySelector('#thread').scrollTop = 0")
            self.audit(f"{name}, answer")
            self.look(f"answer-{name}")
            page.click("#open-settings")
            self.audit(f"{name}, settings")
            page.click("#open-engine")
            page.wait("document.querySelectorAll('.requests tbody tr').length === 7")
            self.audit(f"{name}, engine")
            self.look(f"engine-{name}")
            page.js("document.querySelector('#message').blur()")
            page.key("?")
            page.wait("document.querySelector('dialog[open]')")
            self.audit(f"{name}, keys")
            self.look(f"keys-{name}")
            page.key("Escape")

    def test_the_keyboard_reaches_everything_and_shows_where_it_is(self):
        page = self.open()
        self.send("ring buffer")
        page.js("document.querySelector('#send').disabled = false; document.querySelector('#send').focus()")  # the last stop
        page.key("Tab")
        stops = []
        for _ in range(60):
            page.key("Tab")
            page.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # the browser has drawn the focus
            at = page.js("(() => { const e = document.activeElement, s = getComputedStyle(e); return [e.id || e.getAttribute('aria-label') || e.textContent.trim().slice(0, 30), "
                         "parseFloat(s.outlineWidth) >= 1 && s.outlineStyle !== 'none' || e.id === 'message' && getComputedStyle(e.form).outlineStyle !== 'none', e === document.body]; })()")
            if at[2]:
                break
            self.assertTrue(at[1], f"no visible focus on {at[0]}")
            stops.append(at[0])
        self.assertEqual(stops[0], "Skip to the message box")
        for wanted in ("new-chat", "import", "model", "open-engine", "open-settings", "theme", "thread", "Copy code", "Copy answer", "message"):
            self.assertIn(wanted, stops)
        page.js("document.querySelector('.skip').click(); 0")
        page.js("document.querySelector('#message').blur()")
        page.key("/")
        self.assertEqual(page.js("document.activeElement.id"), "message")

    def test_what_a_screen_reader_hears(self):
        page = self.open()
        self.assertEqual(page.js("document.querySelector('#announcer').getAttribute('aria-live')"), "polite")
        page.js("window.heard = []; new MutationObserver((list) => list.forEach((m) => m.addedNodes.forEach((n) => heard.push(n.textContent)))).observe(document.querySelector('#announcer'), {childList: true})")
        self.send("ring buffer")
        heard = page.js("heard")
        self.assertEqual((heard[0], heard[-1]), ("The answer begins.", "The answer is complete."))
        self.assertIn("ring buffer", " ".join(heard))
        self.assertLess(len(heard), 20, "a live region that speaks with every token")

    def test_the_theme_is_toggled_and_kept(self):
        page = self.open()
        page.click("#theme")
        self.assertEqual(page.js("document.documentElement.dataset.theme"), "dark")
        page.reload()
        page.wait("document.documentElement.dataset.theme === 'dark'")
        page.media(dark=False, reduced=True)
        self.send("slow", done=False)
        page.wait("document.querySelector('.streaming')")
        self.assertEqual(page.js("document.getAnimations().filter((a) => a.playState === 'running').length"), 0)
        page.key("Escape")
        page.wait(DONE)

    def test_text_from_right_to_left(self):
        page = self.open()
        self.send("arabic")
        self.assertEqual(page.js("[...document.querySelectorAll('.prose p')].map((p) => getComputedStyle(p).direction)"), ["rtl", "rtl", "rtl", "ltr"])
        self.look("rtl")
        self.audit("rtl")


class Phone(PageTest):
    touch = True

    def test_phones_from_320_up(self):
        for width, height, dark in ((320, 568, False), (390, 844, True), (768, 1024, False)):
            page = self.open(width=width, height=height, dark=dark, mobile=True, scale=2)
            self.audit(f"{width}, empty")
            page.click("#message")
            page.type("ring buffer")
            page.key("Enter")  # a new line here
            self.assertEqual(page.js("document.querySelector('#message').value"), "ring buffer\n")
            page.click("#send")
            page.wait(DONE)
            page.js("document.querySelector('#thread').scrollTop = 0")
            self.audit(f"{width}, answer")
            self.look(f"phone-{width}-answer")
            if width < 600:
                self.assertEqual(page.js("[...document.querySelectorAll('input, textarea, select')].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 16).length"), 0)
            if width < 800:
                page.click("#open-chats")
                page.wait("document.activeElement.id === 'new-chat'")
                page.browser.pump(0.4)
                self.assertTrue(page.js("document.querySelector('#main').inert"))
                self.audit(f"{width}, chats")
                self.look(f"phone-{width}-chats")
                page.key("Escape")
                page.wait("!document.querySelector('#main').inert")
            page.click("#open-engine")
            page.wait("document.querySelectorAll('.requests tbody tr').length === 7")
            self.audit(f"{width}, engine")
            self.look(f"phone-{width}-engine")
            page.click("#close-panel")
            page.click("#open-settings")
            self.audit(f"{width}, settings")
            self.look(f"phone-{width}-settings")


class Served(PageTest):
    """The page as `cairn serve` gives it, with the model that ships with cairn."""

    def start(self, *flags):
        server = self.enterContext(serving.Server(*flags))
        self.api.url = f"{server.url}/"
        return server

    def setUp(self):
        super().setUp()
        if not program.CAIRN or program.run("serve", "--help")[0] != 0:
            self.skipTest("no cairn binary that serves was given")

    def test_a_real_answer_with_a_key(self):
        self.start("--api-key", "desk:open-sesame")
        self.allowed = ["401 (Unauthorized)"]
        page = self.open()
        page.wait("document.querySelector('dialog[open] input')")
        page.type("open-sesame")
        page.key("Enter")
        page.wait("!document.querySelector('dialog') && !document.querySelector('#model').disabled")
        page.click("#open-engine")
        page.wait("document.querySelector('.engine-about')?.textContent.includes('threads')")
        self.send("Tell me about a cat.")
        self.assertGreater(len(self.text(".prose")), 20)
        self.assertRegex(self.text(".meta"), r"cairn-stories · \d+ tokens · .*first after .* · prompt \d+")
        page.wait("[...document.querySelectorAll('.spark')].some((s) => s.getAttribute('aria-label').startsWith('Answer tokens') && !s.getAttribute('aria-label').endsWith('at most 0.0'))")
        self.look("served")
        self.audit("served")
        self.send("And a dog?")
        self.assertRegex(self.text(".meta"), r"\(\d+ reused\)", "the second turn computed the first again")

    def test_too_long_a_prompt_is_told_with_both_numbers(self):
        server = self.start()
        self.allowed = ["400 (Bad Request)"]
        page = self.open()
        context = server.get("/engine")[1]["context"]
        page.js(f"document.querySelector('#message').value = 'cat '.repeat({2 * context}); document.querySelector('#composer').requestSubmit()")
        page.wait(DONE)
        self.assertIn("Too long for this model", self.text())
        self.assertRegex(self.text(), rf"\b{context}\b")
        self.look("served-too-long")


if __name__ == "__main__":
    if not browser.find():
        print("*** SKIPPED, NO CHROMIUM: the web page was not tested; install the package chromium or set CHROMIUM ***", file=sys.stderr)
        sys.exit(77)
    program.main()
