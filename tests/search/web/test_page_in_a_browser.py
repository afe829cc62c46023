"""The page in headless Chromium, served as ``gckd-search serve`` serves it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from gckd_mm.search.apis import PersonSearchInferencer
from tests.search.web.conftest import COLOURS, SCRIPT, crop
from tests.training import ROOT

pytestmark = pytest.mark.skipif(
    not (shutil.which('chromium') and shutil.which('chromedriver')),
    reason='Chromium and its driver are not installed',
)
_PASSWORD = 'open sesame'
_OPTIONS = (
    *('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic'),
    *('--no-first-run', '--disable-background-networking', '--disable-sync'),
    *('--disable-component-update', '--window-size=1200,1000'),
)


def start(arguments: list[str]) -> tuple[subprocess.Popen, str]:
    """Serve on a free port; return the process and the address once it answers."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'gckd_mm.search.cli.search', 'serve', *arguments]
    process = subprocess.Popen(
        [*command, '--port', str(port)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f'http://127.0.0.1:{port}/'
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1])
        try:
            urllib.request.urlopen(address, timeout=10)
        except urllib.error.HTTPError:
            return process, address  # it wants a password
        except OSError:
            time.sleep(0.1)
        else:
            return process, address
    process.kill()
    raise RuntimeError('the server did not answer')


@pytest.fixture(scope='module')
def address(coloured: Path) -> Iterator[str]:
    process, address = start([str(coloured / 'gallery')])
    yield address
    process.terminate()
    process.communicate()


@pytest.fixture(scope='module')
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for option in _OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service('/usr/bin/chromedriver'))
    yield driver
    driver.quit()


def find(driver: Any, selector: str) -> Any:
    """Wait for an element that is shown."""
    return WebDriverWait(driver, 60).until(
        lambda d: next(
            (x for x in d.find_elements(By.CSS_SELECTOR, selector) if x.is_displayed()),
            None,
        )
    )


BOX = '#text textarea, #text input'


def search(driver: Any, text: str) -> None:
    """Type a text and press Enter; what is typed before the page listens is lost."""

    def typed(driver: Any) -> bool:
        box = find(driver, BOX)
        box.send_keys(Keys.CONTROL, 'a')
        box.send_keys(text)
        return box.get_attribute('value') == text

    WebDriverWait(driver, 60).until(typed)
    find(driver, BOX).send_keys(Keys.ENTER)


def results(driver: Any, heading: str) -> list[str]:
    """Wait for the results of a search, and return the file names in their order."""

    def shown(driver: Any) -> bool:
        found = driver.find_elements(By.CSS_SELECTOR, '.searched')
        return any(each.text == heading for each in found)

    for _ in range(5):
        try:
            WebDriverWait(driver, 20).until(shown)
            break
        except TimeoutException:
            if not heading.startswith('like '):
                search(driver, heading)  # Enter, too, is lost on a page that loads
    assert shown(driver)
    cards = driver.find_elements(By.CSS_SELECTOR, '.matches figure > a')
    return [card.get_attribute('title') for card in cards]


def open_more(driver: Any) -> None:
    if not any(x.is_displayed() for x in driver.find_elements(By.ID, 'without')):
        find(driver, 'button.label-wrap').click()
        find(driver, '#without')


def upload(driver: Any, path: Path) -> None:
    open_more(driver)
    field = driver.find_element(By.CSS_SELECTOR, '#image input[type=file]')
    field.send_keys(str(path))


def test_typing_finds_the_expected_crop_first(
    driver: Any, address: str, coloured: Path
) -> None:
    text = 'a man in a red shirt'
    inferencer = PersonSearchInferencer('gckd_mm://synthclip_tiny_web', device='cpu')
    (matches,) = inferencer.search(coloured / 'gallery', [text], 13)
    driver.get(address)
    search(driver, text)
    found = results(driver, text)
    assert found == [match.item.path for match in matches]
    image = find(driver, '.matches img')
    WebDriverWait(driver, 60).until(
        lambda d: d.execute_script('return arguments[0].naturalWidth', image) > 0
    )


def test_a_click_opens_the_original(driver: Any, address: str, coloured: Path) -> None:
    driver.get(address)
    search(driver, 'a woman')
    first, *_ = results(driver, 'a woman')
    link = find(driver, '.matches figure > a')
    with urllib.request.urlopen(link.get_attribute('href')) as answer:
        assert answer.read() == (coloured / 'crops' / first).read_bytes()


def test_a_file_name_and_a_query_with_html_are_text(driver: Any, address: str) -> None:
    driver.get(address)
    search(driver, SCRIPT)
    assert 'it\'s "<b>".png' in results(driver, SCRIPT)
    assert SCRIPT in find(driver, '#results').text  # the field of that picture
    assert not driver.find_elements(By.CSS_SELECTOR, '#results script, #results b')


def test_more_like_this_searches_by_a_picture_of_the_gallery(
    driver: Any, address: str
) -> None:
    driver.get(f'{address}?like=blue2.png')
    found = results(driver, 'like blue2.png')
    assert sorted(found[:3]) == ['blue0.png', 'blue1.png', 'blue3.png']


def test_an_uploaded_picture_is_searched_for(
    driver: Any, address: str, tmp_path: Path
) -> None:
    crop(COLOURS['green'], 3).save(tmp_path / 'someone.png')
    driver.get(address)
    find(driver, '#text')
    upload(driver, tmp_path / 'someone.png')
    find(driver, '#image img')
    find(driver, '#search').click()
    assert results(driver, 'like your picture')[0] == 'green3.png'


def test_nothing_that_the_page_asks_for_is_refused(
    driver: Any, address: str, tmp_path: Path
) -> None:
    crop(COLOURS['green'], 3).save(tmp_path / 'someone.png')
    driver.get_log('browser')
    driver.get(address)
    find(driver, '.gallery-item').click()
    WebDriverWait(driver, 60).until(
        lambda d: find(d, '#text textarea, #text input').get_attribute('value')
    )
    upload(driver, tmp_path / 'someone.png')
    image = find(driver, '#image img')
    WebDriverWait(driver, 60).until(
        lambda d: d.execute_script('return arguments[0].naturalWidth', image) > 0
    )
    find(driver, '#search').click()
    find(driver, '.matches img')
    messages = driver.get_log('browser')
    assert not [x for x in messages if x['level'] == 'SEVERE'], messages


def test_a_bad_upload_is_a_message(driver: Any, address: str, tmp_path: Path) -> None:
    (tmp_path / 'text.png').write_text('a text')
    driver.get(address)
    find(driver, '#text')
    upload(driver, tmp_path / 'text.png')
    find(driver, '#search').click()
    assert find(driver, '.problem').text == 'what was sent is no picture'
    # and the page goes on
    driver.get(address)
    search(driver, 'a man')
    assert len(results(driver, 'a man')) == 13


def test_a_question_without_words_is_a_message(driver: Any, address: str) -> None:
    driver.get(address)
    search(driver, ' ')
    assert 'needs a description or a picture' in find(driver, '.problem').text


def test_a_phone_needs_no_sideways_scrolling(driver: Any, address: str) -> None:
    driver.set_window_size(400, 800)
    try:
        driver.get(address)
        search(driver, 'a man')
        results(driver, 'a man')
        width, shown = driver.execute_script(
            'return [document.documentElement.scrollWidth, window.innerWidth]'
        )
        assert width <= shown
    finally:
        driver.set_window_size(1200, 1000)


def test_the_keyboard_is_enough(driver: Any, address: str, coloured: Path) -> None:
    """The box has the focus; Tab leads to the results, and Enter opens one."""
    driver.get(address)
    find(driver, '#text')
    keyboard = webdriver.ActionChains(driver)
    keyboard.send_keys('a woman', Keys.ENTER).perform()
    first, *_ = results(driver, 'a woman')
    for _ in range(40):
        keyboard.send_keys(Keys.TAB).perform()
        focused = driver.switch_to.active_element
        if focused.get_attribute('title') == first:
            break
    else:
        raise AssertionError('no key leads to the results')
    href = focused.get_attribute('href')
    tabs = len(driver.window_handles)
    keyboard.send_keys(Keys.ENTER).perform()
    waits = WebDriverWait(driver, 60)
    waits.until(lambda d: len(d.window_handles) > tabs or d.current_url == href)
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])


@pytest.mark.parametrize(('scheme', 'is_dark'), [('light', False), ('dark', True)])
def test_it_is_dark_where_others_are(
    driver: Any, address: str, scheme: str, is_dark: bool
) -> None:
    feature = {'name': 'prefers-color-scheme', 'value': scheme}
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
    try:
        driver.get(address)
        search(driver, 'a man')
        results(driver, 'a man')
        for selector, of in (('body', 'background-color'), ('.searched', 'color')):
            colour = find(driver, selector).value_of_css_property(of)
            red, green, blue, *_ = map(float, re.findall(r'[0-9.]+', colour))
            is_dark_colour = red + green + blue < 3 * 128
            assert is_dark_colour == (is_dark if selector == 'body' else not is_dark)
    finally:
        driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


def test_a_wrong_password_shows_nothing(
    driver: Any, coloured: Path, tmp_path: Path
) -> None:
    (tmp_path / 'password').write_text(f'{_PASSWORD}\n')
    arguments = ['--password-file', str(tmp_path / 'password')]
    process, address = start([str(coloured / 'gallery'), *arguments])
    try:
        place = address.removeprefix('http://')
        driver.get(f'http://gckd:wrong@{place}')
        assert 'Person search' not in driver.title
        # as after the browser's own dialogue: the page's address has no password in it
        driver.get(f'http://gckd:{_PASSWORD.replace(" ", "%20")}@{place}api/info')
        driver.get(address)
        find(driver, '#text')
        assert driver.title == 'Person search'
    finally:
        process.terminate()
        process.communicate()
