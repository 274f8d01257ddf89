# SPDX-License-Identifier: GPL-2.0
# Imports much of the standard library from PYTHONHOME, and prints the nanoseconds that it took.
# "import.py compile" lets Python write the compiled modules; otherwise they must be valid.
import sys
import time
from importlib.machinery import SourceFileLoader


def refuse(self, data, path, **options):
    sys.exit(f"{path}: its compiled module is stale or missing")


compile_modules = sys.argv[1:] == ["compile"]
sys.dont_write_bytecode = not compile_modules
if not compile_modules:
    SourceFileLoader.source_to_code = refuse

start = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
import argparse
import cmd
import collections
import concurrent.futures
import configparser
import csv
import dataclasses
import datetime
import difflib
import doctest
import email.mime.multipart
import email.mime.text
import email.parser
import fileinput
import fractions
import ftplib
import html.parser
import http.client
import http.cookies
import imaplib
import ipaddress
import json
import logging.config
import mailbox
import multiprocessing.pool
import optparse
import pathlib
import pdb
import pickle
import pprint
import pydoc
import random
import shutil
import smtplib
import statistics
import string
import subprocess
import tarfile
import tempfile
import tomllib
import typing
import unittest.mock
import urllib.request
import xml.dom.minidom
import xml.etree.ElementTree
import xmlrpc.client
import zipfile
import zoneinfo
print(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - start)
